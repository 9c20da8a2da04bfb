"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.errors import Exit, InputError
from orchestrator.reports.format import printable

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
OfRun = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="Run ID or its beginning. [default: the newest run]",
        show_default=False,
    ),
]
TwoRows = Annotated[
    list[str], typer.Argument(metavar="A B", help="Two rows: device/runtime.", show_default=False)
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
            "E-INVENTORY-MISSING", "no inventory given", fix="name one with --inventory FILE"
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
        fix=f"known: {', '.join(sorted(known))}",
    )


_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/"
    r"|(?P<known>(?:jdbc|postgres(?:ql)?|mysql|mariadb|sqlite|oracle|mssql)[+\w]*):"
    r"|(?:.*\s)?(?:host|hostaddr|dbname|user|password|service)\s*=",
    re.IGNORECASE | re.DOTALL,
)


def store_folder(given: Path | None) -> Path:
    """The folder of ``--store``.

    Raises InputError E-STORE-ADDRESS for a database's address, of which only its kind is repeated:
    it may hold a password.
    """
    found = _ADDRESS.match(str(given)) if given is not None else None
    if found is not None:
        kind = found["scheme"] or found["known"] or "database"
        raise InputError(
            "E-STORE-ADDRESS",
            f"--store was given a {kind.lower()} address: a store is a folder, and no other kind is"
            " supported yet",
            fix="name a folder on a local disk",
        )
    return given if given is not None else Path(".assay")


def two_rows(words: list[str], run: str | None, command: str) -> tuple[str | None, str, str]:
    """The run, None for the newest, and the two rows.

    Three words are RUN A B, as older versions had it, with - for the newest. Raises InputError
    E-USAGE for any other number.
    """
    if len(words) == 3 and run is None:
        notice(f"assay: the form `{command} RUN A B` goes away; use: {command} A B [--run RUN]")
        return None if words[0] == "-" else words[0], words[1], words[2]
    if len(words) != 2:
        raise InputError(
            "E-USAGE", f"two rows are compared, not {len(words)}", fix=f"see: {command} --help"
        )
    return run, words[0], words[1]


def print_json(data: Any) -> None:
    import json

    print_data(json.dumps(data, indent=2, sort_keys=True, allow_nan=False))


def print_data(text: str) -> None:
    """A format of its own (JSON, CSV), as its renderer made it, on stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Lines for people on stdout. What came from devices and files moves no cursor there."""
    print_data("\n".join(map(printable, text.removesuffix("\n").split("\n"))))


def notice(text: str) -> None:
    """One line for people beside the result, on stderr; left out where nobody can read it."""
    with suppress(OSError):
        typer.echo(printable(text), err=True)


VERDICT_EXIT = {
    "pass": Exit.PASS,
    "fail": Exit.FAIL,
    "error": Exit.INFRA,
    "timeout": Exit.TIMEOUT,
    "inconclusive": Exit.INCONCLUSIVE,
    "covered-by-class": Exit.INCONCLUSIVE,
}
