"""The coordinator's side of a worker, against a channel that says what the test wrote."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import pytest

from device_worker import plain, wire
from orchestrator.devices import worker as module
from orchestrator.devices.worker import Worker
from orchestrator.errors import (
    AssayError,
    DeadlineError,
    InfraError,
    ModelError,
    NotAvailableError,
)
from orchestrator.matrix.environment import clock_note
from orchestrator.transports import failures

HELLO = {"type": "hello", "protocol": wire.PROTOCOL, "clock_unix": 0.0}


class Script:
    """A Channel. ``lines``: messages, raw bytes, or None where it stays silent once."""

    def __init__(
        self, *lines: dict[str, Any] | bytes | None, code: int | None = 0, stderr: str = ""
    ) -> None:
        self.lines, self.code, self.stderr = list(lines), code, stderr
        self.sent: list[dict[str, Any]] = []
        self.closed: list[float] = []

    def send(self, line: bytes) -> None:
        if self.closed:
            raise failures.link_down("d", "closed")
        self.sent.append(json.loads(line))

    def read_line(self, timeout: float) -> bytes | None:
        if not self.lines:
            return None
        line = self.lines.pop(0)
        if line is None:
            time.sleep(timeout)
            raise failures.silence("d", timeout)
        return line if isinstance(line, bytes) else plain.encode(line)

    def stderr_tail(self) -> str:
        return self.stderr

    def returncode(self) -> int | None:
        return self.code

    def close(self, timeout: float = 5.0) -> None:
        self.closed.append(timeout)


def greeted(*lines: dict[str, Any] | bytes | None, silence: float = 5.0) -> tuple[Worker, Script]:
    script = Script(HELLO, *lines)
    worker = Worker(script, where="d", silence=silence)
    worker.greet(5.0)
    return worker, script


def done(id: int, **fields: Any) -> dict[str, Any]:
    return {"type": "done", "id": id, **fields}


BEAT = {"type": "heartbeat", "counter": 3}


def test_greeting_keeps_hello_and_clock() -> None:
    script = Script(HELLO | {"clock_unix": time.time() + 9000})
    worker = Worker(script, where="d", silence=1)
    worker.greet(1)
    assert worker.hello["type"] == "hello"
    assert worker.clock_offset == pytest.approx(9000, abs=1000)


def test_a_clock_that_is_not_told_is_unknown() -> None:
    worker = Worker(Script(HELLO | {"clock_unix": None}), where="d", silence=1)
    worker.greet(1)
    assert worker.clock_offset is None


@pytest.mark.parametrize("clock", ["noon", float("nan"), 1e308, 10**30, [1], True])
def test_a_clock_that_is_none_is_garbage(clock: Any) -> None:
    line = json.dumps(HELLO | {"clock_unix": clock}).encode()
    with pytest.raises(InfraError, match="E-WORKER-GARBAGE"):
        Worker(Script(line), where="d", silence=1).greet(1)


DEEP = b"[" * 900_000
LINES = {
    "heartbeat's id": b'{"type":"heartbeat","id":"x"}',
    "pong's id": b'{"type":"pong","id":[1]}',
    "900 kB of [": DEEP,
    "deep in a field": b'{"type":"done","id":1,"x":' + DEEP + b"]" * 900_000 + b"}",
    "deep and legal": b'{"type":"facts","id":1,"environment":{"x":' + b"[" * 40 + b"]" * 40 + b"}}",
    "deep objects": b'{"a":' * 100_000,
    "half a character": b'{"type":"done","id":1,"nonce":"\\ud800"}',
    "half a character as a name": b'{"type":"facts","id":1,"environment":{"\\udc00":1}}',
    "1e308": b'{"type":"facts","id":1,"environment":{"threads":1e308}}',
    "-1e308": b'{"type":"facts","id":1,"environment":{"x":[-1e308]}}',
    "1e999": b'{"type":"facts","id":1,"environment":{"x":1e999}}',
    "10**30": b'{"type":"facts","id":1,"environment":{"threads":' + str(10**30).encode() + b"}}",
    "a million digits": b'{"type":"done","id":' + b"9" * 1_000_000 + b"}",
    "NaN": b'{"type":"facts","id":1,"environment":{"x":NaN}}',
    "Infinity": b'{"type":"facts","id":1,"environment":{"x":-Infinity}}',
    "a list": b'[{"type":"done","id":1}]' + b" " * 5000,
    "no type": b'{"id":1}',
    "another type": b'{"type":"shutdown","id":1}',
    "a type that is none": b'{"type":["done"],"id":1}',
    "an unknown field": b'{"type":"done","id":1,"and":"more"}',
    "cut short": b'{"type":"done","id":1',
    "no UTF-8": b'{"type":"done","id":1,"nonce":"\xff\xfe"}',
    "present": b'{"type":"have","id":1,"present":5}',
    "present's items": b'{"type":"have","id":1,"present":[5]}',
    "board": b'{"type":"facts","id":1,"environment":{"board":[1,2]}}',
    "cores": b'{"type":"facts","id":1,"environment":{"cores":[1]}}',
    "flags": b'{"type":"facts","id":1,"environment":{"isa_flags":{"a":1}}}',
    "environment": b'{"type":"facts","id":1,"environment":null}',
    "progress": b'{"type":"progress","id":1,"done":"many"}',
    "reading": b'{"type":"sensors","id":1,"reading":5}',
    "doubts": b'{"type":"sensors","id":1,"reading":{},"doubts":[]}',
    "files": b'{"type":"content","id":1,"files":{"a":7}}',
    "an error's ID": b'{"type":"error","id":1,"kind":"model_error","code":"rm -rf /","what":"w"}',
    "an error's text": b'{"type":"error","id":1,"kind":"infra_error","code":"E-X","what":[]}',
    "another answer": b'{"type":"adopted","id":1}',
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_line_that_is_none_is_one_error(line: bytes) -> None:
    worker, _ = greeted(line, done(1))
    with pytest.raises(InfraError) as refused:
        worker.ask("noop", timeout=5)
    text = str(refused.value)
    assert (refused.value.id, refused.value.retryable) == ("E-WORKER-GARBAGE", True)
    assert "\n" not in text
    assert len(text) < 800
    text.encode()


def test_a_text_of_the_worker_brings_no_control_sequences() -> None:
    what = "\x1b[2Jred\x07\u202ealert" + "x" * 10_000
    worker, _ = greeted(
        {"type": "error", "id": 1, "kind": "model_error", "code": "E-X", "what": what}
    )
    with pytest.raises(ModelError) as raised:
        worker.ask("run", timeout=5)
    assert raised.value.what.isprintable()
    assert len(raised.value.what) <= 500


def test_a_field_that_may_be_missing_is_none() -> None:
    worker, _ = greeted({"type": "error", "id": 1})
    with pytest.raises(InfraError, match="E-WORKER-ERROR"):
        worker.ask("run", timeout=5)


@pytest.mark.parametrize(
    ("first", "id", "retryable"),
    [
        (HELLO | {"protocol": wire.PROTOCOL + 1}, "E-WORKER-PROTOCOL", False),
        (done(1), "E-WORKER-PROTOCOL", False),
        (
            {"type": "error", "kind": "stale", "code": "E-LEASE-STALE", "what": "old"},
            "E-LEASE-STALE",
            False,
        ),
        (
            {"type": "error", "kind": "infra_error", "code": "E-LEASE-HELD", "what": "x"},
            "E-LEASE-HELD",
            True,
        ),
    ],
)
def test_a_greeting_that_is_none(first: dict[str, Any], id: str, retryable: bool) -> None:
    with pytest.raises(InfraError) as refused:
        Worker(Script(first), where="d", silence=1).greet(1)
    assert (refused.value.id, refused.value.retryable, refused.value.where) == (id, retryable, "d")


@pytest.mark.parametrize(
    ("code", "stderr", "id", "says", "retryable"),
    [
        (127, "python3: not found\n", "E-DEVICE-PYTHON", "python3: not found", False),
        (126, "denied", "E-DEVICE-PYTHON", "denied", False),
        (78, "assay worker: Python 3.8 [E-PYTHON-OLD]", "E-PYTHON-OLD", "Python 3.8", False),
        (75, "token 1 was followed by 2", "E-LEASE-STALE", "followed", False),
        (137, "", "E-WORKER-KILLED", "out-of-memory", True),
        (3, "first\nlast words\n", "E-WORKER-DIED", "exit 3): last words", True),
        (0, "", "E-WORKER-DIED", "no message", True),
    ],
)
def test_why_the_stream_ended(code: int, stderr: str, id: str, says: str, retryable: bool) -> None:
    with pytest.raises(InfraError) as ended:
        Worker(Script(code=code, stderr=stderr), where="d", silence=1).greet(1)
    assert (ended.value.id, ended.value.retryable) == (id, retryable)
    assert says in ended.value.what
    assert "\n" not in str(ended.value)


def test_an_end_without_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXIT_S", 0.05)
    with pytest.raises(InfraError, match="killed by a signal, or its link was lost"):
        Worker(Script(code=None), where="d", silence=1).greet(1)


def test_a_status_that_comes_late_is_waited_for() -> None:
    script = Script(code=None)
    codes = iter([None, None, 137])
    script.returncode = lambda: next(codes)  # type: ignore[method-assign]  # as the kernel does
    with pytest.raises(InfraError, match="E-WORKER-KILLED"):
        Worker(script, where="d", silence=1).greet(1)


def test_a_reply_is_found_among_everything_else() -> None:
    worker, script = greeted(BEAT, {"type": "pong", "id": -1}, done(7), done(1))
    assert worker.ask("noop", timeout=5, extra=1) == done(1)
    assert script.sent == [{"op": "noop", "id": 1, "extra": 1}]


@pytest.mark.parametrize(
    ("kind", "cls"),
    [
        ("model_error", ModelError),
        ("not_available", NotAvailableError),
        ("infra_error", InfraError),
        ("something new", InfraError),
        (None, InfraError),
    ],
)
def test_errors_are_told_apart(kind: str | None, cls: type[AssayError]) -> None:
    error = {"type": "error", "id": 1, "kind": kind, "code": "E-X", "what": "w", "mend": "m"}
    worker, _ = greeted(error)
    with pytest.raises(cls) as raised:
        worker.ask("run", timeout=5)
    assert (raised.value.id, raised.value.what, raised.value.fix) == ("E-X", "w", "m")


@pytest.mark.parametrize(("code", "retried"), [("E-INPUT-MISFIT", False), ("E-WORKER-SHORT", True)])
def test_what_the_same_job_would_hear_again_is_not_tried_again(code: str, retried: bool) -> None:
    worker, _ = greeted(
        {"type": "error", "id": 1, "kind": "infra_error", "code": code, "what": "w"}
    )
    with pytest.raises(InfraError) as raised:
        worker.ask("run", timeout=5)
    assert raised.value.retryable is retried


def test_an_error_of_no_request_ends_the_one_that_waits() -> None:
    worker, _ = greeted({"type": "error", "kind": "stale", "code": "E-LEASE-STALE", "what": "w"})
    with pytest.raises(InfraError) as raised:
        worker.ask("noop", timeout=5)
    assert not raised.value.retryable


def test_a_late_answer_is_silence_and_a_late_cell_is_a_timeout() -> None:
    worker, _ = greeted(None, None, None)
    with pytest.raises(DeadlineError, match="E-SILENCE"):
        worker.ask("have", timeout=0.05)
    with pytest.raises(DeadlineError, match="E-CELL-TIMEOUT"):
        worker.run(job(), timeout=0.05)


def test_heartbeats_keep_silence_away_but_not_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, script = greeted(silence=0.2)

    def beat(timeout: float) -> bytes:
        time.sleep(0.05)
        return plain.encode(BEAT)

    monkeypatch.setattr(script, "read_line", beat)
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="E-CELL-TIMEOUT"):
        worker.run(job(), timeout=0.6)
    assert time.monotonic() - began >= 0.6


def test_silence_is_told_before_the_deadline() -> None:
    worker, _ = greeted(None, None, silence=0.05)
    with pytest.raises(DeadlineError, match="E-SILENCE"):
        worker.run(job(), timeout=60)


def test_a_long_job_is_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker ends itself when it hears nothing, so it must hear something."""
    monkeypatch.setattr(module, "KEEPALIVE_S", 0.05)
    worker, script = greeted(*[BEAT, None] * 4, done(1))
    worker.ask("noop", timeout=5)
    pings = [m for m in script.sent if m["op"] == "ping"]
    assert len(pings) >= 3
    assert {m["id"] for m in pings} == {-1}


def test_progress_is_passed_on() -> None:
    steps: Iterable[dict[str, Any]] = ({"type": "progress", "id": 1, "done": n} for n in (10, 20))
    worker, _ = greeted(*steps, {"type": "result", "id": 1, "result": None})
    seen: list[int] = []
    with pytest.raises(InfraError, match="E-WORKER-GARBAGE"):
        worker.run(job(), timeout=5, progress=seen.append)
    assert seen == [10, 20]


def test_litter_is_passed_over_and_a_flood_of_it_is_not() -> None:
    worker, _ = greeted(*[b"Segmentation fault"] * 19, done(1))
    assert worker.ask("noop", timeout=5)["type"] == "done"
    worker, _ = greeted(*[b"Segmentation fault"] * 20, done(1))
    with pytest.raises(InfraError, match="E-WORKER-GARBAGE"):
        worker.ask("noop", timeout=5)


def test_ping_is_answered_by_the_worker_itself() -> None:
    worker, script = greeted()
    script.lines = [b"not yet"]
    honest = script.send

    def answer(line: bytes) -> None:
        honest(line)
        script.lines.append({"type": "pong", "id": 1, "nonce": json.loads(line)["nonce"]})

    script.send = answer  # type: ignore[method-assign]  # a worker that listens
    assert worker.ping(5) >= 0
    worker, _ = greeted({"type": "pong", "id": 1, "nonce": "another"})
    with pytest.raises(InfraError, match="E-WORKER-GARBAGE"):
        worker.ping(5)


def test_close_says_goodbye_and_kill_does_not() -> None:
    worker, script = greeted()
    worker.close()
    assert (script.sent[-1]["op"], script.closed) == ("bye", [5.0])
    worker.close()  # the link is gone by now
    worker, script = greeted()
    worker.kill()
    assert (script.sent, script.closed) == ([], [0.0])


@pytest.mark.parametrize(
    ("offset", "note"),
    [
        (None, None),
        (0.0, None),
        (-60.0, None),
        (61.0, "device clock off by +61 s"),
        (-315_360_000.0, "device clock off by -315,360,000 s"),
    ],
)
def test_clock_note(offset: float | None, note: str | None) -> None:
    assert clock_note(offset) == note


def job() -> wire.Job:
    blob = wire.Blob("0" * 64, 1)
    tensor = wire.InputTensor("x", blob, "float32", [1, 4])
    return wire.Job("a", blob, "onnx", [tensor], wire.RuntimeSpec("onnxruntime"), 1)
