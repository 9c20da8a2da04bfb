"""fingerprint, classes: which arithmetic devices do, and which of them do the same."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import (
    AsJson,
    InventoryFiles,
    StoreFolder,
    inventory_of,
    notice,
    print_json,
    print_text,
    store_folder,
    unknown_device,
)
from orchestrator.errors import AssayError, Exit, InputError

if TYPE_CHECKING:
    from orchestrator.coordinator.fingerprinting import Taken
    from orchestrator.fingerprint.classes import Member
    from orchestrator.fingerprint.hypothesis import Tested
    from orchestrator.fingerprint.record import Record
    from orchestrator.store.records import FingerprintInfo

_FINGERPRINT = """Ask devices for their integer arithmetic.

Rounding, saturation, float fallback, plans.

Each is leased, answers the probe pack in every runtime that it has, and the store keeps what it
said. --diff compares two that are stored, each a DEVICE or DEVICE:CONFIGURATION, and asks nobody.

Example: assay fingerprint host qemu-a53 --runtime litert
"""
_CLASSES = """Group devices and runtimes with equal fingerprints.

And show which operators tell the others apart.

Last, whether equal fingerprints have meant equal codes so far, in every run that the store holds.

Example: assay classes --json
"""


def register(app: typer.Typer) -> None:
    app.command(help=_FINGERPRINT, rich_help_panel="Farm")(fingerprint)
    app.command(help=_CLASSES, rich_help_panel="Farm")(classes)


def fingerprint(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE]…", help="Devices.", show_default=False)
    ] = None,
    inventory: InventoryFiles = None,
    runtimes: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help="A runtime (litert) or configuration (litert/reference); repeatable.",
        ),
    ] = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Say what stored A does that stored B does not."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds after which one device is given up.")
    ] = 600.0,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> int:
    if bool(names) == bool(diff):
        raise InputError(
            "E-USAGE", "give either devices or --diff", fix="see: assay fingerprint --help"
        )
    if diff:
        _diff(*diff, store_folder(store), as_json)
        return Exit.PASS
    from orchestrator.coordinator.fingerprinting import chosen, take
    from orchestrator.fingerprint.classes import grouped_json

    known = {device.name: device for device in inventory_of(inventory).devices}
    for name in names or []:
        if name not in known:
            raise unknown_device(name, known)
    devices = [known[name] for name in dict.fromkeys(names or [])]
    configurations = chosen(runtimes or [])
    taken: list[Taken] = []
    with closing(
        take(devices, configurations, store_folder(store), limit_s=timeout)
    ) as fingerprints:
        for found in fingerprints:
            taken.append(found)
            if not as_json:
                print_text(_line(found))
    place = {device.name: n for n, device in enumerate(devices)}
    taken.sort(key=lambda t: place[t.device])  # of equals the first asked for is the standard
    members = [t.member for t in taken if t.member is not None]
    tested = _record(store_folder(store)).tested
    if as_json:
        head = {"schema": "assay.fingerprints/1", "taken": [_taken_json(t) for t in taken]}
        print_json(head | grouped_json(members, tested))
    else:
        _print_groups(members, tested)
    return _exit_code(taken)


def classes(
    families: Annotated[
        list[str] | None,
        typer.Option(
            "--family",
            metavar="GLOB",
            help="Only operator families whose name fits, as 'CONV_2D int8*'; repeatable.",
        ),
    ] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    from orchestrator.fingerprint.classes import grouped_json, of_families
    from orchestrator.fingerprint.hypothesis import as_json as as_json_
    from orchestrator.fingerprint.hypothesis import lines

    record = _record(store_folder(store))
    for why in record.stale.values():
        notice(f"assay: {why}")
    stored = [_member(f) for f in record.prints if (f.device, f.configuration) not in record.stale]
    members = of_families(stored, families or ["*"])
    if stored and not members:
        known = {name.split()[0] for m in stored for name in m.document["families"]}
        raise InputError(
            "E-FINGERPRINT-NONE",
            f"no operator family fits {', '.join(families or [])}",
            fix=f"they begin with: {', '.join(sorted(known))}",
        )
    if as_json:
        head = {
            "schema": "assay.classes/1",
            "families": families,
            "tested": as_json_(record.tested),
        }
        stale = [{"name": ":".join(who), "why": why} for who, why in record.stale.items()]
        print_json(head | {"stale": stale} | grouped_json(members, record.tested))
        return
    if not members and not record.stale:
        print_text("no fingerprint is stored: take some with assay fingerprint DEVICE")
    _print_groups(members, record.tested)
    print_text("\n".join(lines(record.tested)))


def _diff(a: str, b: str, root: Path, as_json: bool) -> None:
    from orchestrator.fingerprint.describe import difference

    stored = _stored(root)
    left, right = (_named(name, stored) for name in (a, b))
    pairs = [
        (mine, other)
        for mine in left
        for other in right
        if mine.configuration == other.configuration or len(left) == len(right) == 1
    ]
    if not pairs:
        raise InputError(
            "E-FINGERPRINT-NONE",
            f"{a!r} and {b!r} have no configuration in common",
            fix="name one of each, as DEVICE:CONFIGURATION",
        )
    said = [
        {"a": m.name, "b": o.name, "words": difference(m.document, o.document, o.name)}
        for m, o in pairs
    ]
    if as_json:
        print_json({"schema": "assay.fingerprint-diff/1", "differences": said})
        return
    for line in said:
        print_text(f"{line['a']}: {line['words']}")


def _stored(root: Path) -> list[Member]:
    """The newest fingerprint of each device and configuration."""
    from orchestrator.store.readonly import glance

    with glance(root) as reader:
        return [_member(f) for f in reader.fingerprints()]


def _member(found: FingerprintInfo) -> Member:
    from orchestrator.fingerprint.classes import Member

    return Member(found.device, found.configuration, found.version, found.document)


def _record(root: Path) -> Record:
    """What the store knows; runs that are left out are told on stderr."""
    from orchestrator.cli.by_class import say_left_out
    from orchestrator.fingerprint.record import record
    from orchestrator.store.database import Store

    unreadable: dict[str, AssayError] = {}
    with Store.open(root, readonly=True) as opened:
        found = record(opened, unreadable)
    say_left_out(unreadable)
    return found


def _named(name: str, stored: list[Member]) -> list[Member]:
    found = [member for member in stored if name in (member.device, member.name)]
    if not found:
        raise InputError(
            "E-FINGERPRINT-NONE",
            f"no fingerprint of {name!r} is stored",
            fix="take it: assay fingerprint DEVICE",
        )
    return found


def _line(taken: Taken) -> str:
    from orchestrator.fingerprint.describe import summary

    member = taken.member
    if member is None:
        return f"{taken.device:<16}  {taken.configuration or '-':<24}  {taken.error}"
    return (
        f"{taken.device:<16}  {taken.configuration:<24}  {member.version or '?':<8}"
        f"  {member.document['sha256'][:8]}  {summary(member.document)}"
    )


def _print_groups(members: list[Member], tested: Tested) -> None:
    from orchestrator.fingerprint.classes import classes, splits

    for group in classes(members, tested):
        print_text(f"class {group[0].document['sha256'][:8]}: {', '.join(m.name for m in group)}")
    for split in splits(members, tested):
        print_text(f"{split.configuration}: {split.member.device}: {split.words}")


def _taken_json(taken: Taken) -> dict[str, Any]:
    member, error = taken.member, taken.error
    return {
        "device": taken.device,
        "configuration": taken.configuration or None,
        "version": member.version if member else None,
        "fingerprint": member.document if member else None,
        "error": {"id": error.id, "what": str(error)} if error else None,
    }


def _exit_code(taken: list[Taken]) -> int:
    """The worst that befell a device; to lack a runtime is no failure if it has another."""
    served = {t.device for t in taken if t.member is not None}
    codes = {
        t.error.exit_code
        for t in taken
        if t.error is not None and not (t.device in served and t.error.exit_code == 5)
    }
    order = (Exit.FAIL, Exit.INFRA, Exit.TIMEOUT, Exit.INCONCLUSIVE)
    return next((code for code in order if code in codes), Exit.PASS)
