"""Fuzzed worker lines, result files and spooled attempts: refused in one line, or read whole."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_worker import messages, wire
from orchestrator.errors import InfraError
from orchestrator.results.check import Asked
from orchestrator.results.door import admitted
from orchestrator.results.encoding import decode, encode
from orchestrator.results.finished import Finished
from tests.unit.results import made

EXAMPLES = 300
counted = {"worker lines": 0, "result files": 0, "spooled attempts": 0}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = sorted({name for fields in messages.MESSAGES.values() for name in fields} | {"id"})
MESSAGES = st.builds(
    lambda kind, more: json.dumps({"type": kind, **more}).encode(),
    st.sampled_from(sorted(messages.MESSAGES)),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(line=st.one_of(MESSAGES, JSON.map(lambda data: json.dumps(data).encode()), st.binary()))
def test_worker_lines(line: bytes) -> None:
    counted["worker lines"] += 1
    try:
        found = messages.message(line)
    except wire.WireError:
        return
    assert found["type"] in messages.MESSAGES
    assert found["id"] is None or type(found["id"]) is int


def mutated(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, gone, new in edits:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + gone :]
    return data


EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 64), st.binary(max_size=16)),
    min_size=1,
    max_size=4,
)
FILES = made.files()


@settings(max_examples=EXAMPLES, deadline=None)
@given(name=st.sampled_from(sorted(FILES)), edits=EDITS, told=st.booleans())
def test_result_files(name: str, edits: list[Any], told: bool) -> None:
    """``told``: the device says of the changed file what it is."""
    counted["result files"] += 1
    files = {**FILES, name: mutated(FILES[name], edits)}
    data = wire.dump(made.result(files)) if told else made.finished().result
    finished = made.finished(files=files, result=data)
    found = admitted(finished, Asked(made.job(), "d", 3))
    assert found is finished or (found.failure is not None and found.files == {})
    if found is finished and not told:
        assert files == FILES


WHOLE = encode(made.finished())


@settings(max_examples=EXAMPLES, deadline=None)
@given(edits=EDITS)
def test_spooled_attempts(edits: list[Any]) -> None:
    counted["spooled attempts"] += 1
    data = mutated(WHOLE, edits)
    try:
        found: Finished | None = decode(data)
    except InfraError as error:
        assert "\n" not in str(error)  # noqa: PT017  either is right, and each is looked at
        found = None
    assert found is None or data == WHOLE


def test_how_many_inputs_were_tried(capsys: pytest.CaptureFixture[str]) -> None:
    """At least as many as were asked for, and seen by whoever reads the run."""
    with capsys.disabled():
        for what, count in counted.items():
            sys.stdout.write(f"\nfuzzed {what}: {count} inputs\n")
    assert all(count == 0 or count >= EXAMPLES // 2 for count in counted.values())
