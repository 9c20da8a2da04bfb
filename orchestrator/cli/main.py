"""`assay`: parse, call, print, exit code.

Commands import what they need when they run, so that `plan`, `status`, `logs`, `devices list` and
`version` start without NumPy, Ray or a runtime.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from errno import EPIPE
from typing import Annotated, Any, TextIO, cast

import typer
from typer.core import TyperGroup

from orchestrator.cli import (
    agreement,
    devices,
    explain,
    fingerprint,
    hub,
    init,
    layers,
    lineage,
    offline,
    sql,
    status,
    store,
    variance,
    work,
)
from orchestrator.errors import AssayError, Exit, InfraError, InputError
from orchestrator.reports.format import printable

PANELS = ("Run", "Look", "Compare", "Sign off", "Farm", "Store")
"""Groups of commands, in the order in which a release goes through them."""


class _Grouped(TyperGroup):
    """Lists commands under their panels; Typer itself does so only with rich's markup."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        named = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        limit = formatter.width - 6 - max(len(name) for name, _ in named)
        for panel in PANELS:
            rows = [
                (name, command.get_short_help_str(limit))
                for name, command in named
                if getattr(command, "rich_help_panel", None) == panel and not command.hidden
            ]
            with formatter.section(panel):
                formatter.write_dl(rows)


app = typer.Typer(
    name="assay",
    cls=_Grouped,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=(
        "A device farm for INT8 models: the same bytes on every device, and a verdict with reasons."
        "\n\nExit codes: 0 pass, 1 the model failed a gate, 2 usage or bad input, 3 infrastructure"
        " error, 4 timed out, 5 inconclusive or not covered, 130 interrupted."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        status.version()
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options of `assay` itself; the help page is the application's."""


init.register(app)
work.register(app)
status.register(app)
variance.register(app)
offline.register(app)
agreement.register(app)
explain.register(app)
lineage.register(app)
fingerprint.register(app)
layers.register(app)
sql.register(app)
app.add_typer(devices.app, name="devices", rich_help_panel="Farm")
app.add_typer(store.app, name="store", rich_help_panel="Store")
app.add_typer(hub.app, name="hub", rich_help_panel="Farm")


def main() -> None:
    """Entry point: every failure is one line on stderr and its own exit code."""
    _stand_in()
    sys.exit(invoke(sys.argv[1:]))


def _stand_in() -> None:
    """Give what is closed a number of its own: the next file opened would get it, and the words."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    # Python's own word for a closed one; typeshed knows of none.
    sys.stdout = cast("TextIO | None", sys.stdout) or os.fdopen(1, "w")
    sys.stderr = cast("TextIO | None", sys.stderr) or os.fdopen(2, "w")


def invoke(arguments: list[str]) -> int:
    try:
        with redirect_stdout(cast("TextIO", _Out(sys.stdout))):
            code = app(arguments, prog_name="assay", standalone_mode=False)
            sys.stdout.flush()
    except AssayError as error:
        for each in (error, *error.also):
            _tell(f"assay: {each}")
        return error.exit_code
    except typer.TyperException as error:
        _tell(_usage(error))
        return Exit.USAGE
    except typer.Abort:
        _tell("assay: interrupted")
        return Exit.INTERRUPTED
    except SystemExit as left:
        if not isinstance(left.__context__, BrokenPipeError | _OutputError):
            raise
        _give_up(sys.stdout)  # the reader of our output went away
        return Exit.PASS
    except _OutputError as error:
        _give_up(sys.stdout)
        if error.errno == EPIPE:
            return Exit.PASS
        what = f"standard output takes no more: {error.strerror or error}"
        fix = "make room there or send it elsewhere; what was run is kept: assay signoff"
        _tell(f"assay: {InfraError('E-OUTPUT-WRITE', what, fix=fix)}")
        return Exit.INFRA
    except Exception as error:  # the last resort: a bug, in one line like the rest
        if os.environ.get("ASSAY_DEBUG"):
            raise
        what = f"internal error: {type(error).__name__}: {error}"
        bug = InfraError("E-BUG", what, fix="ASSAY_DEBUG=1 shows where; please report it")
        _tell(f"assay: {bug}")
        return Exit.INFRA
    if code == Exit.INTERRUPTED and not isinstance(code, Exit):
        # Typer makes a bare 130 of KeyboardInterrupt; a command that drained has said its word.
        _tell("assay: interrupted")
    return code if isinstance(code, int) else Exit.PASS


def _tell(line: str) -> None:
    """The one place that prints errors. Where nobody can be told, the exit code still says it."""
    try:
        print(*map(printable, line.split("\n")), sep="\n", file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
    except OSError:
        _give_up(sys.stderr)


class _OutputError(OSError):
    """Standard output failed: a full disk, a reader or a terminal that went away."""


class _Out:
    """Standard output whose failures are told from those of other files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _told_apart():
            return self._stream.write(text)

    def flush(self) -> None:
        with _told_apart():
            self._stream.flush()


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _OutputError(error.errno, error.strerror) from error


def _give_up(stream: TextIO) -> None:
    """Write no more to it: at exit Python would complain of it again, with a code of its own."""
    with suppress(OSError, ValueError):  # no file behind it, or none any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _usage(error: typer.TyperException) -> str:
    """A parser error on one line; the help page where a command was given nothing at all."""
    text = error.format_message()
    if "\n" in text:
        return text
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "assay"
    return f"assay: {InputError('E-USAGE', text, fix=f'see: {command} --help')}"


if __name__ == "__main__":
    main()
