"""``python -m infra.bundles build NAME… [--force]`` and ``list``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestrator.devices.bundle import bundle_folder

from .build import BuildError, build, manifest
from .recipes import RECIPES


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.bundles", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="build bundles that are not built yet")
    make.add_argument("name", nargs="+", choices=sorted(RECIPES), metavar="NAME")
    make.add_argument("--force", action="store_true", help="build also what is up to date")
    commands.add_parser("list", help="what can be built, and what is")
    chosen = parser.parse_args(arguments)
    if chosen.command == "list":
        for name, recipe in RECIPES.items():
            print(f"{name:22} {_state(name, recipe.key())}")
        return 0
    try:
        for name in chosen.name:
            made = build(RECIPES[name], force=chosen.force)
            print(f"{bundle_folder() / made['file']}  {made['size'] / 1e6:.1f} MB")
    except BuildError as error:
        print(f"bundles: {error}", file=sys.stderr)
        return 3
    return 0


def _state(name: str, key: str) -> str:
    made = manifest(name)
    if made is None:
        return "not built"
    old = "" if made["recipe"] == key else "  (of an older recipe)"
    return f"{made['sha256'][:16]}  {made['size'] / 1e6:.1f} MB{old}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
