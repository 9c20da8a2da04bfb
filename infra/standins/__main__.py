"""``python -m infra.standins build [FOLDER]``: compile the stand-ins, print where they are."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.standins.build import BuildError, build


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] != "build" or len(arguments) > 2:
        print("usage: python -m infra.standins build [FOLDER]", file=sys.stderr)
        return 2
    try:
        print(build(Path(arguments[1]) if len(arguments) == 2 else None))
    except BuildError as error:
        print(f"standins: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
