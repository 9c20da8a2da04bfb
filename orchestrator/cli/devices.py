"""devices list, trust and pair; check, facts and scan are in devices_check."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import devices_check
from orchestrator.cli.options import (
    AdbPort,
    AdbProgram,
    AsJson,
    InventoryFiles,
    inventory_of,
    notice,
    print_json,
    print_text,
    unknown_device,
)
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.transports.settings import SshSettings

PAIR_S = 30.0
"""Seconds that a pairing may take."""

app = typer.Typer(no_args_is_help=True, help="List, check, trust and look for devices.")

devices_check.register(app)


@app.command("list")
def list_devices(inventory: InventoryFiles = None, as_json: AsJson = False) -> None:
    """List the devices of the inventory. Asks none of them anything.

    Example: assay devices list -i matrices/inventories/lab.yaml
    """
    rows = [
        {
            "name": d.name,
            "class": d.class_,
            "tags": list(d.tags),
            "transport": d.transport.type,
            "address": _address(d.transport),
        }
        for d in inventory_of(inventory).devices
    ]
    if as_json:
        print_json({"schema": "assay.devices/1", "devices": rows})
        return
    for row in rows:
        tags = ",".join(row["tags"]) or "-"
        print_text(
            f"{row['name']:<20}  {row['class']:<16}  {row['transport']:<6}"
            f"  {row['address']:<28}  {tags}"
        )


@app.command()
def trust(
    name: Annotated[str, typer.Argument(help="Device name.")],
    inventory: InventoryFiles = None,
    yes: Annotated[bool, typer.Option("--yes", help="Trust without asking.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Accept a changed host key (after checking why).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a device's SSH host key and remember it.

    Those of its gateways come first; each is remembered when you agree.

    Example: assay devices trust pi-desk-3
    """
    from orchestrator.transports.settings import SshSettings
    from orchestrator.transports.ssh_config import hops

    devices = {d.name: d for d in inventory_of(inventory).devices}
    if name not in devices:
        raise unknown_device(name, devices)
    settings = devices[name].transport
    if not isinstance(settings, SshSettings):
        raise InputError("E-DEVICE-TRANSPORT", f"{name} is not reached over ssh: nothing to trust")
    # With --json what is shown for comparing goes to stderr: the document is all of stdout.
    say = notice if as_json else print_text
    *gateways, last = hops(settings)
    keys = [_trust(hop, f"gateway of {name}", yes, replace, say) for hop in gateways]
    keys.append(_trust(last, name, yes, replace, say))
    if as_json:
        print_json({"schema": "assay.trust/1", "device": name, "keys": keys})


@app.command()
def pair(
    address: Annotated[str, typer.Argument(help="HOST:PORT of the phone's pairing dialogue.")],
    code: Annotated[str, typer.Argument(help="The six digits that it shows.")],
    adb_program: AdbProgram = "adb",
    server_port: AdbPort = 5137,
    as_json: AsJson = False,
) -> None:
    """Pair with a phone over the network.

    Android 11 and newer: Wireless debugging.

    Example: assay devices pair 192.168.1.20:37123 482924
    """
    from orchestrator.transports.adb import AdbServer

    said = AdbServer(adb_program, server_port).pair(address, code, PAIR_S)
    if as_json:
        print_json({"schema": "assay.paired/1", "address": address, "said": said})
    else:
        print_text(said)


def _trust(
    settings: SshSettings, name: str, yes: bool, replace: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """What was shown and how it stood before; raises unless it is trusted afterwards."""
    from orchestrator.transports.known_hosts import Standing
    from orchestrator.transports.trust import fetch_host_key, standing
    from orchestrator.transports.trust import trust as remember

    key = fetch_host_key(settings, device=name)
    say(f"{name} ({key.address}) shows {key.algorithm} {key.fingerprint}")
    found = standing(settings, key)
    told = {
        "of": name,
        "address": key.address,
        "algorithm": key.algorithm,
        "fingerprint": key.fingerprint,
        "was": found.value,
    }
    if found is Standing.KNOWN:
        say(f"{name}: trusted already")
        return told
    # A key that will be refused anyway is not worth a question.
    if found is Standing.UNKNOWN or replace:
        _agree(name, yes)
    remember(settings, key, replace=replace)
    say(f"{name}: trusted")
    return told


def _agree(name: str, yes: bool) -> None:
    """Raises InputError E-TRUST-REFUSED unless somebody says yes."""
    try:
        agreed = yes or typer.confirm("Compare it with the device's own. Trust it?", err=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise  # Ctrl-C at the question
        agreed = False
    if not agreed:
        raise InputError(
            "E-TRUST-REFUSED", f"{name}: the key was not trusted", fix="answer y, or give --yes"
        )


def _address(transport: Any) -> str:
    if transport.type == "ssh":
        user = f"{transport.user}@" if transport.user else ""
        return f"{user}{transport.host}" + (f":{transport.port}" if transport.port else "")
    return str(transport.serial if transport.type == "adb" else transport.root)
