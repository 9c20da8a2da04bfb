"""hub head, hub start, hub env: hosts that reach devices the coordinator cannot."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import print_text
from orchestrator.errors import Exit

if TYPE_CHECKING:
    from orchestrator.fanout.node import Place

app = typer.Typer(no_args_is_help=True, help="Run on hosts that reach devices this one cannot.")

Interface = Annotated[
    str,
    typer.Option(
        "--interface", metavar="IP", help="This host's address in the cluster: the only one used."
    ),
]
Address = Annotated[
    str, typer.Option("--address", metavar="HOST:PORT", help="Where the head listens.")
]
Token = Annotated[
    Path, typer.Option("--token", metavar="FILE", help="The cluster's secret, mode 0600.")
]
_TOKEN = Path("~/.config/assay/hub-token")
_FOLDER = Path("~/.cache/assay/hub")


@app.command()
def head(interface: Interface, port: int = 6399, token: Token = _TOKEN) -> int:
    """Run the head node that hubs and coordinators join.

    Makes the token if there is none. Runs until Ctrl-C or SIGTERM, which ends every process it
    started.

    Example: assay hub head --interface 10.0.5.1
    """
    from orchestrator.fanout.node import head_command, make_token

    make_token(token.expanduser())
    place = _place(interface, token)
    return _serve(
        head_command(interface, port),
        place,
        "head",
        f'head on {interface}:{port}; here: eval "$(assay hub env --interface {interface}'
        f' --address {interface}:{port})"',
    )


@app.command()
def start(
    name: Annotated[str, typer.Argument(help="As `hub:` in the inventory says.")],
    address: Address,
    interface: Interface,
    token: Token = _TOKEN,
) -> int:
    """Run the hub NAME and drive its devices.

    They are those that the inventory puts on it.

    Runs until Ctrl-C or SIGTERM, which ends every process it started.

    Example: assay hub start lab-a --address 10.0.5.1:6399 --interface 10.0.5.7
    """
    from orchestrator.fanout.node import hub_command

    command = hub_command(name, interface, address)
    up = f"hub {name} joined {address}"
    return _serve(command, _place(interface, token), name, up, address)


@app.command()
def env(address: Address, interface: Interface, token: Token = _TOKEN) -> None:
    """Print variables with which `assay run` joins the cluster.

    For a shell on this host.

    Example: eval "$(assay hub env --address 10.0.5.1:6399 --interface 10.0.5.1)"
    """
    import shlex

    variables = {"RAY_ADDRESS": address, **_place(interface, token).env()}
    # Ray would take a token that stands in the environment before the file with the cluster's own.
    lines = [
        "unset RAY_AUTH_TOKEN",
        *(f"export {k}={shlex.quote(variables[k])}" for k in sorted(variables)),
    ]
    print_text("\n".join(lines))


def _place(interface: str, token: Path) -> Place:
    from orchestrator.fanout.node import Place

    return Place(interface, token.expanduser().absolute(), _FOLDER.expanduser())


def _serve(command: list[str], place: Place, name: str, up: str, head: str | None = None) -> int:
    from orchestrator.fanout.node import serve

    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    serve(command, place.env(), place.folder / f"{name}.log", lambda: print_text(up), end, head)
    return Exit.PASS
