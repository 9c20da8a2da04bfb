"""Entry point of ``python3 -m infra.virtual_farm``."""

import sys

from .farm import main

if __name__ == "__main__":
    sys.exit(main())
