"""Commands of ``python -m infra.standins``: build, compile.

``build [FOLDER]`` compiles the stand-in for libedgetpu and prints where it is; ``compile SOURCE
TARGET`` writes a file in the form that the Edge TPU compiler gives.
"""

from __future__ import annotations

import sys
from pathlib import Path

from infra.standins.build import BuildError, build

_USAGE = """\
usage: python -m infra.standins build [FOLDER]
       python -m infra.standins compile SOURCE.tflite TARGET.tflite"""


def main(arguments: list[str]) -> int:
    match arguments:
        case ["build", *folder] if len(folder) < 2:
            try:
                print(build(Path(folder[0]) if folder else None))
            except BuildError as error:
                print(f"standins: {error}", file=sys.stderr)
                return 3
        case ["compile", source, target]:
            from infra.standins.compile import compile_file

            try:
                compile_file(Path(source), Path(target))
            except OSError as error:
                print(f"standins: {error}", file=sys.stderr)
                return 2
        case _:
            print(_USAGE, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
