"""The parts of the fan-out that need no device: failures as stored, spool, assignment, the gate."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_worker import wire
from orchestrator.errors import (
    AssayError,
    DeadlineError,
    InfraError,
    InputError,
    ModelError,
    NotAvailableError,
)
from orchestrator.fanout import hub as hub_module
from orchestrator.fanout.executor import DEVICES_PER_HUB, assign
from orchestrator.fanout.hub import Hub, _check_identity, _gate
from orchestrator.fanout.order import Failure, Finished, Order, Target
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
    counts = [list(found.values()).count(hub) for hub in range(3)]
    assert counts == [DEVICES_PER_HUB, DEVICES_PER_HUB, 1]
    assert assign([]) == {}


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


class Warm:
    """Answers with one reading after the other, then the last again."""

    def __init__(self, *readings: Any) -> None:
        self.readings = list(readings)

    def ask(self, op: str, *, timeout: float, sources: list[Any]) -> dict[str, Any]:
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        return {"reading": {"values": {f"temp/{zone}": c for zone, c in reading.items()}}}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, ...]]:
    monkeypatch.setattr(hub_module, "_COOL_POLL_S", 0.01)

    def ask(limit: float | None, settle: float, *readings: Any) -> tuple[str, ...]:
        blob = wire.Blob("0", 0)
        job = wire.Job("a", blob, "onnx", [], wire.RuntimeSpec("onnxruntime"), 1)
        order = Order(TARGET, job, "python3", {}, max_start_c=limit, settle_s=settle)
        return _gate(Warm(*readings), order)  # type: ignore[arg-type]  # asks it nothing else

    return ask


def test_the_start_gate(gate: Callable[..., tuple[str, ...]]) -> None:
    assert gate(None, 0, {"cpu": 99.0}) == ()
    assert gate(60, 0, {"cpu": 60.0, "gpu": 20.0, "dead": None}) == ()
    assert gate(60, 5, {"cpu": 80.0}, {"cpu": 70.0}, {"cpu": 59.0}) == ()
    assert gate(60, 0.05, {"cpu": 80.0}) == ("started at 80 °C, over the limit of 60 °C",)


def test_a_battery_that_nobody_reads_is_not_full() -> None:
    job = wire.Job("a", wire.Blob("0", 0), "onnx", [], wire.RuntimeSpec("onnxruntime"), 1)
    order = Order(TARGET, job, "python3", {}, min_battery=30, max_start_c=60)
    warm = Warm({"cpu": 80.0})
    assert _gate(warm, order) == (  # type: ignore[arg-type]  # asks it nothing else
        "battery unknown: cannot be shown to be over 30 %",
        "started at 80 °C, over the limit of 60 °C",
    )


@pytest.mark.parametrize("reading", [{}, {"cpu": None}])
def test_what_cannot_be_read_is_not_cool(
    gate: Callable[..., tuple[str, ...]], reading: dict[str, Any]
) -> None:
    (note,) = gate(60, 0, reading)
    assert "unknown" in note
