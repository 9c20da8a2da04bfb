"""devices check, facts, scan: the commands that ask live devices."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.options import (
    AdbPort,
    AdbProgram,
    AsJson,
    InventoryFiles,
    StoreFolder,
    inventory_of,
    inventory_paths,
    print_json,
    print_text,
    store_folder,
    unknown_device,
)

_CHECK = """Check devices from end to end.

Reach, identity, runtimes, sensors, transport contract.

Exit codes: 0 all is right, 3 something is wrong, 5 something could not be learned.

Example: assay devices check pi-desk-3 --quick
"""
_FACTS = """Show everything a device says of itself, with sources.

Example: assay devices facts pi-desk-3 --json
"""
_SCAN = """Look for devices and propose inventory entries.

Writes nothing, tries no passwords.

Only what is named is looked at: adb with --adb, addresses with --range. With --key or --agent it
logs in where the host key is trusted, and recognises the class.

Example: assay devices scan --adb --range 192.168.1.0/28 --user pi --key ~/.ssh/id_ed25519
"""


def register(app: typer.Typer) -> None:
    app.command(help=_CHECK)(check)
    app.command(help=_FACTS)(facts)
    app.command(help=_SCAN)(scan)


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]…", help="Devices. [default: all]", show_default=False),
    ] = None,
    inventory: InventoryFiles = None,
    contract: Annotated[
        bool,
        typer.Option("--contract/--quick", help="Run the transport's contract suite as well."),
    ] = True,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Remember the units as they are now: they were exchanged."),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds after which one device is given up.")
    ] = 900.0,
    hub: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="This machine is the hub NAME: check its devices."),
    ] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> int:
    from orchestrator.coordinator.checkup import check_devices
    from orchestrator.devices.health import document, exit_code
    from orchestrator.reports.checklist import checklist, marks, total

    chosen = _chosen(inventory, names or [])
    found = []
    with closing(
        check_devices(
            chosen,
            _classes(inventory_paths(inventory)),
            store_folder(store),
            contract=contract,
            accept=accept,
            limit_s=timeout,
            hub=hub,
        )
    ) as healths:
        for health in healths:
            found.append(health)
            if not as_json:
                print_text(checklist(health, marks(sys.stdout.encoding)))
    if as_json:
        order = {device.name: n for n, device in enumerate(chosen)}
        print_json(document(sorted(found, key=lambda health: order[health.device])))
    elif len(found) > 1:
        print_text(total(found))
    return exit_code(found)


def facts(
    name: Annotated[str, typer.Argument(help="Device name.")],
    inventory: InventoryFiles = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    from orchestrator.coordinator.checkup import facts_document
    from orchestrator.reports.checklist import facts as rendered

    (device,) = _chosen(inventory, [name])
    document = facts_document(device, store_folder(store))
    if as_json:
        print_json(document)
    else:
        print_text(rendered(document))


def scan(
    adb: Annotated[bool, typer.Option("--adb", help="What the adb server sees.")] = False,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            metavar="ADDRESSES",
            help="10.0.0.7, 10.0.0.0/28 or 10.0.0.7-10.0.0.20; repeatable.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of sshd.")] = 22,
    user: Annotated[str | None, typer.Option(help="User to log in as.")] = None,
    key: Annotated[str | None, typer.Option(metavar="FILE", help="Log in with this key.")] = None,
    agent: Annotated[
        bool, typer.Option("--agent", help="Log in with the keys of the ssh agent.")
    ] = False,
    known_hosts: Annotated[
        str | None, typer.Option(metavar="FILE", help="[default: ~/.ssh/known_hosts]")
    ] = None,
    adb_program: AdbProgram = "adb",
    server_port: AdbPort = 5137,
    inventory: InventoryFiles = None,
    as_json: AsJson = False,
) -> None:
    from orchestrator.devices.scan import Login, scan_adb, scan_range, wanted
    from orchestrator.reports.proposals import document, rendered

    if not adb and not ranges:
        raise typer.BadParameter("say where to look: --adb, --range ADDRESSES or both")
    addresses = wanted(ranges or [])
    paths = tuple(inventory or sorted(Path("matrices/inventories").glob("*.yaml")))
    devices = inventory_of(list(paths)).devices if paths else ()
    classes = _classes(paths)
    found = scan_adb(adb_program, server_port, devices, classes) if adb else []
    login = Login(user, key, agent, known_hosts)
    found += scan_range(addresses, port, login, devices, classes)
    if as_json:
        print_json(document(found, len(addresses)))
    else:
        print_text(rendered(found, len(addresses)))


def _chosen(inventory: list[Path] | None, names: list[str]) -> list[Any]:
    devices = {device.name: device for device in inventory_of(inventory).devices}
    for name in names:
        if name not in devices:
            raise unknown_device(name, devices)
    return [devices[name] for name in dict.fromkeys(names)] if names else list(devices.values())


def _classes(inventories: tuple[Path, ...]) -> list[Any]:
    """All device classes, those beside the inventories first."""
    from orchestrator.matrix.device_class import load_classes

    return load_classes(tuple(path.parent / "classes" for path in inventories))
