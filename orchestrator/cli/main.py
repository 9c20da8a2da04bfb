"""`assay`: parse, call, print, exit code. Commands import what they need when they run, so that

`plan`, `status`, `logs`, `devices list` and `version` start without NumPy, Ray or a runtime.
"""

from __future__ import annotations

import os
import sys

import typer

from orchestrator.cli import (
    agreement,
    devices,
    explain,
    fingerprint,
    hub,
    layers,
    lineage,
    look,
    offline,
    sql,
    store,
    variance,
    work,
)
from orchestrator.errors import AssayError, Exit, InfraError, InputError

app = typer.Typer(
    name="assay",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=(
        "A device farm for INT8 models: the same bytes on every device, and a verdict with reasons."
        "\n\nExit codes: 0 pass, 1 the model failed a gate, 2 usage or bad input, 3 infrastructure"
        " error, 4 timed out, 5 inconclusive or not covered, 130 interrupted."
    ),
)
work.register(app)
look.register(app)
variance.register(app)
offline.register(app)
agreement.register(app)
explain.register(app)
lineage.register(app)
fingerprint.register(app)
layers.register(app)
sql.register(app)
app.add_typer(devices.app, name="devices")
app.add_typer(store.app, name="store")
app.add_typer(hub.app, name="hub")


def main() -> None:
    """Entry point: every failure is one line on stderr and its own exit code."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    try:
        code = app(arguments, prog_name="assay", standalone_mode=False)
    except AssayError as error:
        print(f"assay: {error}", file=sys.stderr)  # noqa: T201  the one place that prints errors
        return error.exit_code
    except typer.TyperException as error:
        print(_usage(error), file=sys.stderr)  # noqa: T201
        return Exit.USAGE
    except typer.Abort:
        print("assay: interrupted", file=sys.stderr)  # noqa: T201
        return Exit.INTERRUPTED
    except SystemExit as left:
        if not isinstance(left.__context__, BrokenPipeError):
            raise
        # The reader of our output went away; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PASS
    except Exception as error:  # the last resort: a bug, in one line like the rest
        if os.environ.get("ASSAY_DEBUG"):
            raise
        what = f"internal error: {type(error).__name__}: {error}"
        bug = InfraError("E-BUG", what, mend="ASSAY_DEBUG=1 shows where; please report it")
        print(f"assay: {bug}", file=sys.stderr)  # noqa: T201
        return Exit.INFRA
    if code == Exit.INTERRUPTED and not isinstance(code, Exit):
        # Typer makes a bare 130 of KeyboardInterrupt; a command that drained has said its word.
        print("assay: interrupted", file=sys.stderr)  # noqa: T201
    return code if isinstance(code, int) else Exit.PASS


def _usage(error: typer.TyperException) -> str:
    """A parser error on one line; the help page where a command was given nothing at all."""
    text = error.format_message()
    if "\n" in text:
        return text
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "assay"
    return f"assay: {InputError('E-USAGE', text, mend=f'see: {command} --help')}"


if __name__ == "__main__":
    main()
