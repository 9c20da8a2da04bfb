"""The door: each part of an answer, spoilt in turn, is refused by name; an honest one passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from device_worker import wire
from orchestrator.results.check import Asked, Declared
from orchestrator.results.door import admitted
from orchestrator.results.finished import Failure, Finished
from tests.unit.results import made

DECLARED = (Declared("int8", (1, 2)), Declared("float32", (None, 2, 2)))
ASKED = Asked(made.job(), "d", 3, DECLARED)


def failure(finished: Finished, asked: Asked = ASKED) -> str | None:
    """The error ID that the door gives, None: admitted as it came."""
    found = admitted(finished, asked)
    if found is finished:
        return None
    assert found.failure is not None
    assert (found.failure.outcome, found.result, found.files) == ("infra_error", None, {})
    assert (found.attempt, found.device, found.token) == (asked.job.attempt, "d", 3)
    assert found.failure.retryable
    assert found.failure.text.isprintable()
    assert len(found.failure.text) < 600
    return found.failure.id


def test_an_honest_answer_is_admitted_as_it_came() -> None:
    assert failure(made.finished()) is None
    assert failure(made.finished(), replace(ASKED, outputs=())) is None


def spoilt(change: Callable[[dict[str, Any]], Any]) -> Finished:
    """What the device says, changed."""
    finished = made.finished()
    data = json.loads(json.dumps(finished.result))
    change(data)
    return replace(finished, result=data)


def put(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        place: Any = data
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


NAN, INF, HUGE = float("nan"), float("inf"), 10**30
TELLING = {
    "another attempt": (put("attempt", to="b" * 32), "E-RESULT-JOB"),
    "another model": (put("model_sha256", to="0" * 64), "E-RESULT-JOB"),
    "other inputs": (put("input_sha256", to=["0" * 64]), "E-RESULT-JOB"),
    "no inputs": (put("input_sha256", to=[]), "E-RESULT-JOB"),
    "fewer passes": (put("repeats", "count", to=1), "E-RESULT-JOB"),
    "more samples": (put("repeats", "samples", to=4), "E-RESULT-JOB"),
    "heated": (
        put("soak", to={"target_c": 60.0, "reached": True, "heat_s": 1.0, "hold_s": 1.0,
                        "inferences": 1, "mismatches": 0}),
        "E-RESULT-JOB",
    ),
    "a power mode": (put("power", to="max"), "E-RESULT-JOB"),
    "an order": (put("order", to={"seed": 1, "sample": 0, "same": True}), "E-RESULT-JOB"),
    "mismatches of none": (put("repeats", "mismatches", to=4), "E-RESULT-VALUE"),
    "negative mismatches": (put("repeats", "mismatches", to=-1), "E-RESULT-VALUE"),
    "a sample out of range": (put("repeats", "first", to=[[3, 1]]), "E-RESULT-FORM"),
    "no pair": (put("repeats", "first", to=[[1]]), "E-RESULT-FORM"),
    "negative load": (put("load_ns", to=-1), "E-RESULT-VALUE"),
    "a hundred years": (put("run_ns", to=3 * 10**18), "E-RESULT-VALUE"),
    "run_ns 10**30": (put("run_ns", to=HUGE), "E-RESULT-VALUE"),
    "less than its samples": (put("run_ns", to=2999), "E-RESULT-VALUE"),
    "before 1970": (put("started_unix", to=-1.0), "E-RESULT-VALUE"),
    "NaN": (put("started_unix", to=NAN), "E-RESULT-VALUE"),
    "infinity": (put("ended_unix", to=INF), "E-RESULT-VALUE"),
    "1e308": (put("ended_unix", to=1e308), "E-RESULT-VALUE"),
    "readings": (put("telemetry", "samples", to=-1), "E-RESULT-VALUE"),
    "scale 0": (put("outputs", 0, "scale", to=0.0), "E-RESULT-VALUE"),
    "scale NaN": (put("outputs", 0, "scale", to=NAN), "E-RESULT-VALUE"),
    "scale infinite": (put("outputs", 1, "scale", to=INF), "E-RESULT-VALUE"),
    "nodes": (put("backend", "nodes", to={"CPU": -1}), "E-RESULT-VALUE"),
    "telemetry NaN": (put("telemetry", "end", to={"temp/cpu": NAN}), "E-RESULT-VALUE"),
    "telemetry 10**30": (put("telemetry", "max", to={"temp/cpu": HUGE}), "E-RESULT-VALUE"),
    "environment infinite": (put("environment", "more", to=[-INF]), "E-RESULT-VALUE"),
    "NaN as text": (put("run_ns", to="NaN"), "E-RESULT-FORM"),
    "a field too many": (put("more", to=1), "E-RESULT-FORM"),
    "a field too few": (lambda data: data.pop("load_ns"), "E-RESULT-FORM"),
    "board": (put("environment", "board", to=[1, 2]), "E-RESULT-FORM"),
    "environment": (put("environment", to=None), "E-RESULT-FORM"),
    "a flood of notes": (put("notes", to=["x"] * 1000), "E-RESULT-FORM"),
    "no outputs": (put("outputs", to=[]), "E-RESULT-SHAPE"),
    "dtype said": (put("outputs", 1, "dtype", to="float16"), "E-RESULT-SHAPE"),
    "shape said": (put("outputs", 1, "shape", to=[3, 4]), "E-RESULT-SHAPE"),
    "another hash": (put("outputs", 0, "blob", "sha256", to="0" * 64), "E-RESULT-HASH"),
    "another size": (put("files", "telemetry", "blob", "size", to=1), "E-RESULT-SIZE"),
    "another role": (lambda d: d["files"].update(x=d["files"].pop("telemetry")), "E-RESULT-FILES"),
}  # fmt: skip


@pytest.mark.parametrize("name", TELLING)
def test_what_a_device_says_of_its_run_is_possible(name: str) -> None:
    change, id = TELLING[name]
    assert failure(spoilt(change)) == id


def rewritten(outputs: tuple[NDArray[Any], ...] = made.OUTPUTS, **changes: bytes) -> Finished:
    """A device that lies consistently: other files, and their right hashes and sizes."""
    files = made.files(outputs, **changes)
    return made.finished(files=files, result=wire.dump(made.result(files, outputs)))


def second(data: bytes) -> Finished:
    """The second output's file is ``data``, as its device says too."""
    files = {**made.files(), "output-1": data}
    return made.finished(files=files, result=wire.dump(made.result(files)))


def header(shape: str, descr: str = "<f4", order: str = "False") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


ONE, TWO = made.OUTPUTS
PAYLOAD = TWO.tobytes()
LATENCY = made.npy(np.full(made.SAMPLES, 1000, np.int64))
REWRITTEN = {
    "one output": (rewritten((ONE,)), "E-RESULT-SHAPE"),
    "three outputs": (rewritten((ONE, TWO, TWO)), "E-RESULT-SHAPE"),
    "swapped": (rewritten((TWO, ONE)), "E-RESULT-SHAPE"),
    "another dtype": (rewritten((ONE.astype(np.uint8), TWO)), "E-RESULT-SHAPE"),
    "a wider dtype": (rewritten((ONE, TWO.astype(np.float64))), "E-RESULT-SHAPE"),
    "another shape": (rewritten((ONE, TWO.reshape(3, 4))), "E-RESULT-SHAPE"),
    "a longer row": (rewritten((np.zeros((3, 3), np.int8), TWO)), "E-RESULT-SHAPE"),
    "fewer samples": (rewritten((ONE[:2], TWO[:2])), "E-RESULT-SHAPE"),
    "big-endian": (
        second(header("(3, 2, 2)", ">f4") + PAYLOAD), "E-RESULT-FORM",
    ),
    "by columns": (
        second(header("(3, 2, 2)", order="True") + PAYLOAD), "E-RESULT-FORM",
    ),
    "7.3 TiB": (second(header("(2000000000000,)") + PAYLOAD), "E-RESULT-FORM"),
    "a shape that overflows": (
        second(header("(4294967296, 4294967296)") + PAYLOAD), "E-RESULT-FORM",
    ),
    "a negative shape": (
        second(header("(-3, 2, -2)") + PAYLOAD), "E-RESULT-FORM",
    ),
    "a shape of truths": (
        second(header("(3, 2, True)") + PAYLOAD), "E-RESULT-FORM",
    ),
    "a header of code": (
        second(header("__import__('os').system('true')") + PAYLOAD),
        "E-RESULT-FORM",
    ),
    "a deep header": (second(header("(" * 4000) + PAYLOAD), "E-RESULT-FORM"),
    "objects": (second(header("(3,)", "|O") + b"\x80\x04N."), "E-RESULT-FORM"),
    "texts": (second(header("(3, 2, 2)", "<U1") + PAYLOAD), "E-RESULT-FORM"),
    "more behind it": (second(made.npy(TWO) + b"!"), "E-RESULT-FORM"),
    "cut short": (second(made.npy(TWO)[:-1]), "E-RESULT-FORM"),
    "no npy": (second(b"PK\x03\x04" * 40), "E-RESULT-FORM"),
    "version 9": (second(b"\x93NUMPY\x09\x00" + b"\0" * 100), "E-RESULT-FORM"),
    "latency float": (
        rewritten(latency_ns=made.npy(np.full(3, NAN))), "E-RESULT-SHAPE",
    ),
    "latency of fewer": (rewritten(latency_ns=made.npy(np.ones(2, np.int64))), "E-RESULT-SHAPE"),
    "latency negative": (rewritten(latency_ns=made.npy(np.array([1, -1, 1]))), "E-RESULT-VALUE"),
    "latency of years": (
        rewritten(latency_ns=made.npy(np.array([1, 1 << 62, 1]))), "E-RESULT-VALUE",
    ),
    "hashes of others": (
        rewritten(sample_hashes=made.npy(np.zeros((3, 32), np.uint8))), "E-RESULT-HASH",
    ),
    "hashes signed": (
        rewritten(sample_hashes=made.npy(np.zeros((3, 32), np.int8))), "E-RESULT-SHAPE",
    ),
    "telemetry of no readings": (rewritten(telemetry=b"[1]\n"), "E-RESULT-FORM"),
    "telemetry NaN": (rewritten(telemetry=b'{"t_s":0,"values":{"a":NaN}}\n'), "E-RESULT-FORM"),
    "telemetry 1e308": (rewritten(telemetry=b'{"t_s":1e308,"values":{}}\n'), "E-RESULT-FORM"),
    "telemetry infinite": (rewritten(telemetry=b'{"t_s":0,"values":{"a":1e999}}'), "E-RESULT-FORM"),
    "telemetry 10**30": (
        rewritten(telemetry=b'{"t_s":0,"values":{"a":%d}}' % HUGE), "E-RESULT-FORM",
    ),
    "telemetry's names": (
        rewritten(telemetry=b'{"t_s":0,"values":{"\\u001b[2J":1}}'), "E-RESULT-FORM",
    ),
    "telemetry deep": (rewritten(telemetry=b'{"t_s":' * 100_000), "E-RESULT-FORM"),
    "telemetry half a character": (
        rewritten(telemetry=b'{"t_s":0,"values":{"\\ud800":1}}'), "E-RESULT-FORM",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REWRITTEN)
def test_files_that_lie_consistently_are_not_what_was_asked_for(name: str) -> None:
    finished, id = REWRITTEN[name]
    assert failure(finished) == id


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e38])
def test_what_a_model_puts_out_is_an_answer(value: float) -> None:
    outputs = (ONE, np.full_like(TWO, value))
    assert failure(rewritten(outputs)) is None


@pytest.mark.parametrize(
    ("sample", "shape", "fits"),
    [
        ((2,), (1, 2), True),
        ((2,), (None, 2), True),
        ((2,), (1, None), True),
        ((2,), (2,), True),
        ((2,), None, True),
        ((2,), (1, 3), False),
        ((2,), (1, 2, 1), False),
        ((4, 2), (4, 2), True),
        ((4, 2), (1, 4, 2), True),
        ((2,), (4, 2), False),
        ((), (1,), True),
    ],
)
def test_a_models_shape(sample: tuple[int, ...], shape: Any, fits: bool) -> None:
    """A leading axis of 1 is the sample's own; any other is part of what the model puts out."""
    outputs = (np.zeros((made.SAMPLES, *sample), np.int8),)
    asked = replace(ASKED, outputs=(Declared("int8", shape),))
    assert failure(rewritten(outputs), asked) == (None if fits else "E-RESULT-SHAPE")


FILES = made.files()


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(sorted(FILES)), place=st.integers(0, 1 << 20))
def test_one_flipped_bit_in_a_file_is_refused(name: str, place: int) -> None:
    data = bytearray(FILES[name])
    bit = place % (len(data) * 8)
    data[bit // 8] ^= 1 << bit % 8
    assert failure(made.finished(files={**FILES, name: bytes(data)})) == "E-RESULT-HASH"


def test_files_that_are_not_those_that_were_announced() -> None:
    assert failure(made.finished(files={**FILES, "../x": b""})) == "E-RESULT-FILES"
    fewer = {name: data for name, data in FILES.items() if name != "telemetry"}
    assert failure(made.finished(files=fewer)) == "E-RESULT-FILES"
    assert failure(made.finished(files={**FILES, "telemetry": b""})) == "E-RESULT-SIZE"


def test_the_answer_of_another_device_or_under_another_lease() -> None:
    assert failure(made.finished(device="e")) == "E-RESULT-JOB"
    assert failure(made.finished(token=4)) == "E-RESULT-JOB"
    assert failure(made.finished(attempt="b" * 32)) == "E-RESULT-JOB"
    assert failure(made.finished(started_unix=NAN)) == "E-RESULT-VALUE"
    assert failure(made.finished(result=None, files={})) == "E-RESULT-FORM"


@pytest.mark.parametrize(
    ("told", "id"),
    [
        (Failure("model_error", "E-MODEL-LOAD", "no", False), None),
        (Failure("infra_error", "E-LINK", "gone", True), None),
        (Failure("ok", "E-LINK", "gone", True), "E-RESULT-FORM"),
        (Failure("running", "E-LINK", "gone", True), "E-RESULT-FORM"),
        (Failure("timeout", "rm -rf /", "gone", True), "E-RESULT-FORM"),
        (Failure("timeout", "E-SILENCE", "two\nlines", True), "E-RESULT-FORM"),
    ],
)
def test_a_failure_passes_the_same_door(told: Failure, id: str | None) -> None:
    assert failure(made.finished(failure=told, result=None, files={})) == id
    if id is None:
        assert failure(made.finished(failure=told)) == "E-RESULT-FORM", "with an answer"
