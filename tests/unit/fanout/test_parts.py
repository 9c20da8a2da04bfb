"""The parts of the fan-out that need no device: failures as stored, spool, assignment."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from orchestrator.fanout.hub_job import Target
from orchestrator.fanout.spool import Spool
from orchestrator.results.encoding import decode
from orchestrator.results.finished import Failure
from orchestrator.transports.settings import LocalSettings
from tests.support.orders import Bench, refused


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


def test_an_attempt_comes_back_as_it_went(tmp_path: Path) -> None:
    Spool(tmp_path / "s").keep("a1", b"bytes")
    again = Spool(tmp_path / "s")  # another process, later
    assert again.pending() == ["a1"]
    assert again.load("a1") == b"bytes"
    again.forget(["a1", "never kept"])
    assert again.pending() == []


def test_a_half_written_attempt_is_none(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "a1.99.part").write_bytes(b"half")
    assert spool.pending() == []


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    (tmp_path / "secret.attempt").write_bytes(b"secret")
    (tmp_path / "s" / "link.attempt").symlink_to(tmp_path / "secret.attempt")
    os.mkfifo(tmp_path / "s" / "fifo.attempt")
    (tmp_path / "s" / "folder.attempt").mkdir()
    for attempt in ("a1", "link", "fifo", "folder", "../secret", "", "a/b", "x\0"):
        with pytest.raises(InfraError) as refused:
            spool.load(attempt)
        assert refused.value.id == "E-HUB-SPOOL"
    spool.forget(["../secret"])
    assert (tmp_path / "secret.attempt").exists()


def test_what_nobody_expected_is_the_attempts_own_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub answers for every order, and is as good as before for the next one."""
    errors = [RecursionError("deep"), KeyError("x\x1b[31m"), MemoryError(), UnicodeError("\udc00")]
    hub, order = Hub(tmp_path / "spool"), Bench(tmp_path).order("unit")
    for error in errors:
        monkeypatch.setattr(hub, "_carry_out", raising(error))
        failure = hub.run(order).failure
        assert failure is not None
        assert (failure.outcome, failure.id, failure.retryable) == (
            "infra_error",
            "E-HUB-ERROR",
            True,
        )
        assert type(error).__name__ in failure.text
        assert failure.text.isprintable()
        assert decode(hub.redeliver(order.job.attempt)).failure == failure
    hub.close()


def raising(error: Exception) -> Callable[..., Any]:
    def method(*arguments: Any) -> Any:
        raise error

    return method


def test_an_answer_that_cannot_be_kept_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, order = Hub(tmp_path / "spool"), Bench(tmp_path).order("unit", python=None)
    for error, id in [
        (OSError(28, "No space left"), "E-HUB-IO"),
        (ValueError("no"), "E-HUB-ERROR"),
    ]:
        monkeypatch.setattr(Spool, "keep", raising(error))
        assert refused(hub.run(order)) == ("infra_error", id, True)


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
