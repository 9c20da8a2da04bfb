"""Write the locked closure of pyproject.toml from what is installed in this environment.

Run by `make lock` in an environment where the wanted versions are installed; versions only, no
index is named, so that every user's own index configuration stays in force.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def closure(requirements: list[str]) -> dict[str, str]:
    """Name -> installed version of everything that the requirements pull in here."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(r) for r in requirements]
    while todo:
        wanted = todo.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        installed = distribution(name)
        found[name] = installed.version
        for text in installed.requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": e}) for e in ("", *extras)
            ):
                todo.append(needed)
    return found


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    main_set = closure(project["dependencies"])
    dev_set = closure(project["optional-dependencies"]["dev"])
    for name, packages in (
        ("requirements.txt", main_set),
        ("dev.txt", {k: v for k, v in dev_set.items() if k not in main_set}),
    ):
        lines = [f"{k}=={v}\n" for k, v in sorted(packages.items())]
        header = "# Locked closure of pyproject.toml, written by `make lock`.\n"
        (ROOT / "infra" / "locks" / name).write_text(header + "".join(lines))


if __name__ == "__main__":
    main()
