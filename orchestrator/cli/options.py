"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.errors import Exit, InputError

StoreFolder = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar="ASSAY_STORE",
        metavar="DIR",
        help="Folder of the database and artefacts. [default: .assay]",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (versioned schema) on stdout.")]
Select = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        "-s",
        metavar="GLOB",
        help="Only cells whose ID matches; repeatable; a leading ! takes cells away.",
    ),
]
RunId = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Run ID or its beginning. [default: the newest run]"),
]
MatrixFile = Annotated[Path, typer.Argument(metavar="MATRIX", help="Matrix file (YAML).")]

AdbProgram = Annotated[str, typer.Option("--adb-program", help="The adb client.")]
AdbPort = Annotated[
    int, typer.Option("--server-port", min=1, max=65535, help="Port of our own adb server.")
]
InventoryFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--inventory",
        "-i",
        metavar="FILE",
        help="Inventory file; repeatable. [default: all of matrices/inventories]",
        show_default=False,
    ),
]


def inventory_paths(files: list[Path] | None) -> tuple[Path, ...]:
    """Those given, else all of matrices/inventories. Raises InputError E-INVENTORY-MISSING."""
    paths = files or sorted(Path("matrices/inventories").glob("*.yaml"))
    if not paths:
        raise InputError(
            "E-INVENTORY-MISSING", "no inventory given", mend="name one with --inventory FILE"
        )
    return tuple(paths)


def inventory_of(files: list[Path] | None) -> Any:
    """The Inventory of all those files together."""
    from orchestrator.matrix.loader import load_inventories

    return load_inventories(inventory_paths(files))


def unknown_device(name: str, known: Iterable[str]) -> InputError:
    return InputError(
        "E-DEVICE-NAME",
        f"no device {name!r} in the inventory",
        mend=f"known: {', '.join(sorted(known))}",
    )


def store_folder(given: Path | None) -> Path:
    return given if given is not None else Path(".assay")


def print_json(data: Any) -> None:
    import json

    print_text(json.dumps(data, indent=2, sort_keys=True, allow_nan=False))


def print_text(text: str) -> None:
    """Results go to stdout; everything else (progress, messages) to stderr."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


VERDICT_EXIT = {
    "pass": Exit.PASS,
    "fail": Exit.FAIL,
    "error": Exit.INFRA,
    "timeout": Exit.TIMEOUT,
    "inconclusive": Exit.INCONCLUSIVE,
    "covered-by-class": Exit.INCONCLUSIVE,
}
