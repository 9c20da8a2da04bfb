"""One contract, every transport: local, fake, ssh and adb to real daemons and emulated devices."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import AssayError
from orchestrator.transports import (
    AdbSettings,
    FakeSettings,
    Fault,
    LocalSettings,
    SshSettings,
    Transport,
    TransportSettings,
    open_transport,
)
from orchestrator.transports.contract import CHECKS, Check, ContractError, calls, files, run_check
from tests.support import adbd, sshd

FARM = os.environ.get("ASSAY_FARM", "0") != "0"
BOARD = ("127.77.0.11", 2222)
PHONE = ("127.77.0.21", 5555)


def _board(root: str) -> SshSettings:
    farm = Path(os.environ.get("ASSAY_FARM_DIR") or "~/.cache/assay/farm").expanduser()
    return SshSettings(
        host=BOARD[0],
        port=BOARD[1],
        user="root",
        key=str(farm / "id_ed25519"),
        known_hosts=str(farm / "known_hosts"),
        config=False,
        agent=False,
        root=root,
    )


_NO_SSHD = pytest.mark.skipif(bool(sshd.MISSING), reason=sshd.MISSING or "")
_NO_BOARD = pytest.mark.skipif(not FARM, reason="the virtual boards are not up (ASSAY_FARM=1)")

TRANSPORTS: dict[str, tuple[tuple[Check, ...], list[pytest.MarkDecorator]]] = {
    "local": (CHECKS, []),
    "fake": (CHECKS, []),
    "ssh": (CHECKS, [_NO_SSHD]),
    "ssh-no-sftp": (files.CHECKS, [_NO_SSHD]),
    "ssh-jump": ((*calls.CHECKS, *files.CHECKS), [_NO_SSHD]),
    "board": (CHECKS, [pytest.mark.farm, _NO_BOARD]),
    "adb": (CHECKS, [pytest.mark.adbd]),
    "phone": (CHECKS, [pytest.mark.phone]),
}

CASES = [
    pytest.param(name, item, marks=marks, id=f"{name}-{item.name}")
    for name, (items, marks) in TRANSPORTS.items()
    for item in items
]


@pytest.fixture(scope="module")
def transport(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Transport]:
    folder = tmp_path_factory.mktemp(request.param)
    settings: TransportSettings
    match request.param:
        case "local":
            settings = LocalSettings(root=str(folder / "a root"))
        case "fake":
            never = Fault(kind="drop", on="run", after=1_000_000)
            settings = FakeSettings(root=str(folder / "a root"), faults=[never])
        case "board":
            settings = _board(".cache/assay/contract")
        case "adb":
            with (
                adbd.running(folder) as device,
                open_transport(device.settings(), device="unit") as opened,
            ):
                yield opened
            return
        case "ssh-jump":
            with sshd.running(folder / "gate") as gate, sshd.running(folder / "board") as board:
                sshd.introduced(board, gate)
                jump = f"{getpass.getuser()}@127.0.0.1:{gate.port}"
                with open_transport(board.settings(jump=jump), device="unit") as opened:
                    yield opened
            return
        case "phone":
            settings = AdbSettings(serial=f"{PHONE[0]}:{PHONE[1]}")
        case _:
            with (
                sshd.running(folder, *([""] if request.param == "ssh-no-sftp" else [])) as server,
                open_transport(server.settings(), device="unit") as opened,
            ):
                yield opened
            return
    with open_transport(settings, device="unit") as opened:
        yield opened


@pytest.mark.parametrize(("transport", "item"), CASES, indirect=["transport"])
def test_contract(transport: Transport, item: Check) -> None:
    run_check(item, transport)


def test_names_are_unique_and_many() -> None:
    assert len({item.name for item in CHECKS}) == len(CHECKS) >= 20


def test_a_transport_that_breaks_the_contract_is_found(tmp_path: Path) -> None:
    """The suite itself must be able to fail: bytes changed on the way are noticed."""
    faults = [Fault(kind="corrupt", on=on, times=None) for on in ("run", "push", "read")]
    found = set()
    settings = FakeSettings(root=str(tmp_path), faults=faults)
    with open_transport(settings, device="unit") as spoilt:
        for item in CHECKS:
            try:
                item.run(spoilt, spoilt.root() / item.name)
            except (ContractError, AssayError, ValueError):
                found.add(item.name)
    assert {
        "stdin_round_trip",
        "files_round_trip",
        "channel_echoes_lines",
        "every_word_arrives_as_it_is",
    } <= found
