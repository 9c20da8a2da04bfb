"""The parts of the fan-out that need no device: failures as stored, spool, assignment."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest

from orchestrator.errors import (
    AssayError,
    DeadlineError,
    InfraError,
    InputError,
    ModelError,
    NotAvailableError,
)
from orchestrator.fanout.executor import DEVICES_PER_HUB, Seat, assign, refuse_hubs
from orchestrator.fanout.hub import Hub, _check_identity
from orchestrator.fanout.order import Failure, Finished, Target
from orchestrator.fanout.spool import Spool
from orchestrator.transports.settings import LocalSettings


@pytest.mark.parametrize(
    ("error", "outcome", "retryable"),
    [
        (ModelError("E-X", "w"), "model_error", False),
        (NotAvailableError("E-X", "w"), "not_available", False),
        (DeadlineError("E-CELL-TIMEOUT", "w"), "timeout", False),
        (DeadlineError("E-SILENCE", "w"), "timeout", False),
        (DeadlineError("E-DEADLINE", "w"), "infra_error", True),
        (InfraError("E-LINK", "w"), "infra_error", True),
        (InfraError("E-SSH-HOSTKEY", "w", retryable=False), "infra_error", False),
        (InputError("E-X", "w"), "infra_error", False),
    ],
)
def test_an_error_as_it_is_stored(error: AssayError, outcome: str, retryable: bool) -> None:
    assert Failure.of(error) == Failure(outcome, error.id, str(error), retryable)


def test_devices_are_shared_out_alike_whatever_their_order() -> None:
    names = [f"d{n:03}" for n in range(2 * DEVICES_PER_HUB + 1)]
    found = assign(names)
    assert found == assign(reversed([*names, *names]))
    counts = [list(found.values()).count(Seat(None, n)) for n in range(3)]
    assert counts == [DEVICES_PER_HUB, DEVICES_PER_HUB, 1]
    assert assign([]) == {}


def test_a_device_with_a_hub_is_driven_from_there() -> None:
    far = {f"d{n:03}": "lab" for n in range(DEVICES_PER_HUB + 1)}
    found = assign([*far, "near"], {**far, "elsewhere": "attic"})
    counts = {seat: list(found.values()).count(seat) for seat in found.values()}
    assert counts == {Seat("lab", 0): DEVICES_PER_HUB, Seat("lab", 1): 1, Seat(None, 0): 1}
    assert found["near"] == Seat(None, 0)


def test_threads_drive_what_this_host_reaches() -> None:
    refuse_hubs({})
    with pytest.raises(InputError, match=r"pi is reached from hub lab.*E-HUB-INPROCESS"):
        refuse_hubs({"pi": "lab"})


# Spool ---------------------------------------------------------------------------------------


def finished(attempt: str = "a1") -> Finished:
    return Finished(attempt, "d", 3, 1.0, 2.0, None, {"x": 1}, {"output-0": b"\0bytes"}, 7, ("n",))


def test_an_attempt_comes_back_as_it_went(tmp_path: Path) -> None:
    Spool(tmp_path / "s").keep(finished())
    again = Spool(tmp_path / "s")  # another process, later
    assert again.pending() == ["a1"]
    assert again.load("a1") == finished()
    again.forget(["a1", "never kept"])
    assert again.pending() == []


def test_a_half_written_attempt_is_none(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "a1.99.part").write_bytes(b"half")
    assert spool.pending() == []


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80", pickle.dumps(finished())[:-20], b"text", pickle.dumps("another thing"), None],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, content: bytes | None) -> None:
    spool = Spool(tmp_path)
    if content is not None:
        (tmp_path / "a1.attempt").write_bytes(content)
    with pytest.raises(InfraError) as refused:
        spool.load("a1")
    assert refused.value.id == "E-HUB-SPOOL"


# Hub -----------------------------------------------------------------------------------------


def test_a_hub_lacks_what_neither_disk_has(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "spool")
    data = b"model"
    sha = hashlib.sha256(data).hexdigest()
    (tmp_path / "here").write_bytes(b"")
    paths = {sha: "/nowhere/model", "b" * 64: str(tmp_path / "here")}
    assert hub.lacks(paths) == [sha]
    hub.receive(sha, data)
    assert hub.lacks(paths) == []


def test_a_blob_that_changed_on_its_way_is_not_kept(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "spool")
    with pytest.raises(InfraError, match="E-TRANSFER-HASH"):
        hub.receive("a" * 64, b"other bytes")
    assert hub.lacks({"a" * 64: "/nowhere"}) == ["a" * 64]


TARGET = Target("unit", "rpi4", LocalSettings(), "farm", 1)


def test_an_emulated_board_may_not_be_called_something_else() -> None:
    _check_identity(TARGET, {})
    _check_identity(TARGET, {"board": None})
    _check_identity(TARGET, {"board": {"class": "rpi4"}})
    with pytest.raises(InfraError) as refused:
        _check_identity(TARGET, {"board": {"class": "qemu-a72"}})
    assert (refused.value.id, refused.value.retryable) == ("E-DEVICE-IDENTITY", False)
