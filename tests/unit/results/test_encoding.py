"""A finished attempt as bytes: every flipped bit shows, and nothing of it is executed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import InfraError
from orchestrator.results.check import job_result
from orchestrator.results.encoding import decode, encode
from orchestrator.results.finished import Failure, Finished
from tests.unit.results import made

OLD = Path(__file__).parents[2] / "data" / "df4554a" / "spool.attempt"
WHOLE = encode(made.finished())


def refused(data: bytes) -> str:
    with pytest.raises(InfraError) as refusal:
        decode(data)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    return refusal.value.id


@pytest.mark.parametrize(
    "finished",
    [
        made.finished(),
        made.finished(files={"b": b"\n\0\n", "a": b"", "c": b"{}"}),
        made.finished(timing_notes=("warm", "ü"), bytes_pushed=7, hub=None),
        made.finished(result=None, files={}, failure=Failure("timeout", "E-SILENCE", "x", False)),
    ],
)
def test_an_attempt_comes_back_as_it_went(finished: Finished) -> None:
    assert decode(encode(finished)) == finished


@settings(max_examples=300, deadline=None)
@given(bit=st.integers(0, len(WHOLE) * 8 - 1))
def test_one_flipped_bit_shows(bit: int) -> None:
    data = bytearray(WHOLE)
    data[bit // 8] ^= 1 << bit % 8
    assert refused(bytes(data)) in ("E-RESULT-HASH", "E-RESULT-VERSION")


def test_every_bit_of_the_first_line_and_every_length() -> None:
    for bit in range(8 * 100):
        data = bytearray(WHOLE)
        data[bit // 8] ^= 1 << bit % 8
        refused(bytes(data))
    for end in [*range(200), len(WHOLE) - 1]:
        assert refused(WHOLE[:end]) == "E-RESULT-HASH"
    assert refused(WHOLE + b"\n") == "E-RESULT-HASH"


def sealed(body: bytes, version: int = 1) -> bytes:
    return b"assay.attempt/%d %s\n" % (version, hashlib.sha256(body).hexdigest().encode()) + body


def test_another_version_is_refused_by_name() -> None:
    with pytest.raises(InfraError, match=r"has the form 2, this Assay reads 1 .*E-RESULT-VERSION"):
        decode(sealed(b"{}\n", 2))


def document(**changes: Any) -> bytes:
    fields = json.loads(WHOLE.split(b"\n", 2)[1])
    return json.dumps({**fields, "files": [], **changes}).encode() + b"\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]\n",
        b"{}\n",
        b'{"a":' * 100_000,
        document(files=[["a", 1]]),
        document(files=[["a", -1]]),
        document(files=[["a", 0], ["a", 0]]),
        document(files=[["a", True]]),
        document(files=[["a", 10**30]]),
        document(files=[[1, 0]]),
        document(files={"a": 0}),
        document(files=[0]),
        document() + b"more",
        document(token="3"),
        document(token=True),
        document(attempt=None),
        document(more=1),
        document(failure={"outcome": "ok"}),
        document(timing_notes="warm"),
        document(started_unix=1e308),
        document(started_unix=float("nan")),
        document(result=[1]),
    ],
)
def test_a_right_hash_over_what_is_none(body: bytes) -> None:
    assert refused(sealed(body)) == "E-RESULT-FORM"


# What an older Assay spooled ------------------------------------------------------------------


def test_a_pickle_of_an_older_assay_is_read_as_plain_data() -> None:
    found = decode(OLD.read_bytes())
    assert (found.device, found.token, found.outcome) == ("bench", 1, "ok")
    assert sorted(found.files) == ["latency_ns", "output-0", "sample_hashes", "telemetry"]
    assert job_result(found.result).repeats.samples == 4
    assert decode(encode(found)) == found


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/assay-was-here",)


class Builtin:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("1+1",)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Evil(), 4),
        pickle.dumps(made.finished(result={"x": Evil()}), 4),
        pickle.dumps(Builtin(), 4),
        pickle.dumps("another thing", 4),
        pickle.dumps(made.finished(), 4),  # of today's module, which no older Assay named
        pickle.dumps({"a": made.job()}, 4),
        OLD.read_bytes()[:-20],
        OLD.read_bytes()[:2],
        b"\x80\x04" + b"\x8e" + (1 << 42).to_bytes(8, "little"),  # 4 TiB of bytes to come
        b"\x80\x04N" + b"r" + (1 << 31).to_bytes(4, "little") + b".",  # the 2**31st thing to keep
        b"\x80\x04" + b"(" * 100_000,
        b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".",
    ],
)
def test_a_pickle_that_is_no_older_attempt_makes_nothing(data: bytes) -> None:
    assert refused(data) == "E-RESULT-HASH"
    assert not Path("/tmp/assay-was-here").exists()


@settings(max_examples=200, deadline=None)
@given(bit=st.integers(0, len(OLD.read_bytes()) * 8 - 1))
def test_a_flipped_bit_in_a_pickle_is_an_error_or_plain_data(bit: int) -> None:
    data = bytearray(OLD.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    try:
        found = decode(bytes(data))
    except InfraError as error:
        found = None
        refusal = error.id
    assert isinstance(found, Finished) or refusal.startswith("E-RESULT-")
