"""The streamed signature against the plain one, which holds everything at once."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.diagnosis import permuted as columns_of
from orchestrator.diagnosis import signature as signature_of
from orchestrator.diagnosis.permuted import ALIKE, swapped_columns
from orchestrator.diagnosis.signature import signature
from orchestrator.variance.answers import Answers, read
from orchestrator.variance.lattice import Output, real
from orchestrator.variance.tasks import Classification, Regression, Task

Array = NDArray[Any]
NEAR = 1e-9


def answers(values: Array, zero: int = 0, task: Task | None = None) -> Answers:
    integer = values.dtype.kind in "iu"
    lattice = (0.5, zero, None, None) if integer else (None, None, None, None)
    return read(task or Classification(), [Output("y", values, *lattice)])


def plain(a: Answers, b: Answers) -> dict[str, object]:
    """What the docstring of `Signature` says, said again with whole arrays."""
    x, y = (real(side.outputs[0]) for side in (a, b))
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(x) & np.isfinite(y)
    largest = np.abs(x[finite]).max(initial=0)
    rows = [[row.tobytes() for row in side] for side in (x, y)]
    found: dict[str, object] = {
        "relative": float(np.abs(x - y)[finite].max()) / float(largest) if largest else None,
        "rows": len(set(rows[0])) > 1 and rows[0] != rows[1] and sorted(rows[0]) == sorted(rows[1]),
        "columns": None,
    }
    p, q = a.codes[0], b.codes[0]
    one_lattice = (
        p is not None and q is not None and a.outputs[0].zero_point == b.outputs[0].zero_point
    )
    if one_lattice:
        assert p is not None
        assert q is not None
        d = p - q
        found |= {"up": (d > 0).sum(), "down": (d < 0).sum(), "ones": (np.abs(d) == 1).sum()}
    else:
        found |= {"up": None, "down": None, "ones": None}
    if len(x) < 3 or not np.isfinite(x).all() or not np.isfinite(y).all():
        return found
    classes = x.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        table = np.nan_to_num(np.corrcoef(x.T, y.T)[:classes, classes:])
    best = table.argmax(axis=1)
    ordered = np.sort(table, axis=1)
    varied = np.ptp(x, axis=0) > 0
    assume((ordered[varied, -1] - ordered[varied, -2] > NEAR).all())  # else rounding decides
    own = table.diagonal()
    gains = [(table[i, j], table[i, j] - own[i]) for i, j in enumerate(best) if i != j]
    assume(all(abs(t - ALIKE) > NEAR and abs(g - 1 + ALIKE) > NEAR for t, g in gains))
    fit = all(t >= ALIKE and g >= 1 - ALIKE for t, g in gains)
    if gains and fit and sorted(best) == list(range(len(best))):
        found["columns"] = tuple(best.tolist())
    return found


@st.composite
def two(draw: st.DrawFn) -> tuple[Array, Array, int]:
    """b is a with columns or rows in another order, codes moved, or something else."""
    n, classes = draw(st.integers(1, 9)), draw(st.integers(2, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    top = draw(st.sampled_from([1, 3, 120]))
    a = random.integers(-top, top + 1, (n, classes)).astype(np.int8)
    b = a.copy()
    for how in draw(st.sets(st.sampled_from(["columns", "rows", "steps", "new"]))):
        if how == "columns":
            b = b[:, random.permutation(classes)]
        elif how == "rows":
            b = b[random.permutation(n)]
        elif how == "steps":
            b = (b + random.integers(-1, 2, b.shape)).astype(np.int8)
        else:
            b = random.integers(-top, top + 1, (n, classes)).astype(np.int8)
    if draw(st.booleans()):
        u, v = (side.astype(np.float32) / 4 for side in (a, b))
        if draw(st.booleans()):
            v[random.integers(n), random.integers(classes)] = draw(
                st.sampled_from([np.nan, np.inf])
            )
        return u, v, 0
    return a, b, draw(st.sampled_from([0, 0, 3]))


@pytest.fixture(params=[1, 7, 1 << 15], autouse=True)
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of one sample, of a few and in one."""
    monkeypatch.setattr(signature_of, "BLOCK", request.param)
    monkeypatch.setattr(columns_of, "CHUNK", 1 if request.param == 1 else 2)


@given(two())
def test_in_pieces_it_is_what_it_is_of_the_whole(sides: tuple[Array, Array, int]) -> None:
    a, b = answers(sides[0]), answers(sides[1], sides[2])
    found = signature(a, b)
    wanted = plain(a, b)
    if found.identical:
        wanted |= {"columns": None, "rows": False}
    assert {name: getattr(found, name) for name in wanted} == wanted


def test_one_sample_has_no_columns_and_no_order() -> None:
    found = signature(answers(np.array([[1, 2]], np.int8)), answers(np.array([[2, 1]], np.int8)))
    assert (found.columns, found.rows, found.up, found.down, found.ones) == (None, False, 1, 1, 2)


def test_nothing_is_nothing() -> None:
    """Outputs of no elements: a task that decides on values of a sample still has samples."""
    empty = answers(np.zeros((3, 0), np.int8), task=Regression(0.5))
    found = signature(empty, empty)
    assert found.identical
    assert (found.up, found.down, found.ones, found.relative) == (0, 0, 0, None)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_column_far_from_zero_loses_nothing_to_rounding(offset: float) -> None:
    """Also where the first row, from which all others are counted, is the odd one out."""
    random = np.random.default_rng(3)
    a = random.normal(size=(500, 5)) + offset
    a[0] += 1e3
    b = a[:, [0, 2, 1, 3, 4]]
    assert swapped_columns([(a[:100], b[:100]), (a[100:], b[100:])]) is None, (
        "one row is all there is"
    )
    a, b = a[1:], b[1:]
    assert swapped_columns([(a[:100], b[:100]), (a[100:], b[100:])]) == (0, 2, 1, 3, 4)


def test_memory_does_not_grow_with_the_samples() -> None:
    peaks = []
    for n in (2_000, 16_000):
        a = np.random.default_rng(0).integers(-100, 100, (n, 100)).astype(np.int8)
        b = a.copy()
        b[::7, 3] += 1
        sides = answers(a), answers(b)
        tracemalloc.start()
        signature(*sides)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # What compare keeps of every sample (its largest step, whether it differs) is a few bytes.
    assert peaks[1] - peaks[0] < 64 * 14_000, peaks
