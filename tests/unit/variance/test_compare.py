"""Pairs, departures from FP32, the fleet: exact counts by hand, laws on random tables."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from orchestrator.variance import device, fleet, pair
from orchestrator.variance.answers import Answers, read
from orchestrator.variance.lattice import Output
from orchestrator.variance.tasks import Classification, Regression, Task, TaskError
from tests.unit.variance.arrays import f32, i8, i16, i32

Int8 = NDArray[np.int8]
CODES = hnp.arrays(np.int8, (7, 4))
LABELS = np.array([0, 1, 2, 3, 0, 1, 2])


def answers(
    values: Any, labels: NDArray[Any] | None = None, task: Task | None = None, **lattice: Any
) -> Answers:
    lattice = lattice or {"scale": 0.1, "zero_point": 0, "code_min": -128, "code_max": 127}
    return read(task or Classification(), [Output("y", np.asarray(values), **lattice)], labels)


@given(CODES)
def test_a_row_against_itself_differs_in_exactly_nothing(q: Int8) -> None:
    a = answers(q, LABELS)
    found = pair.compare(a, answers(q.copy(), LABELS))
    assert (found.bit_exact, found.elements_different, found.disagreement) == (7, 0, 0)
    assert (found.max_lsb, found.mean_signed_lsb, found.over(0)) == (0, 0.0, 0)
    assert found.lsb_histogram == {"0": 28}
    against = device.against_fp32(a, a)
    assert (against.disagreement.k, against.c_to_i, against.i_to_c) == (0, 0, 0)
    assert against.mcnemar_p == 1.0
    spread = fleet.spread([a, a, a])
    assert spread.unanimity.k == 7
    assert spread.instability is not None
    assert spread.instability.k == 0


@given(CODES, CODES)
def test_pairs_are_symmetric_but_for_the_sign(x: Int8, y: Int8) -> None:
    a, b = answers(x), answers(y)
    forth, back = pair.compare(a, b), pair.compare(b, a)
    for name in ("bit_exact", "elements_different", "disagreement", "near_tie", "max_lsb"):
        assert getattr(forth, name) == getattr(back, name)
    assert forth.lsb_histogram == back.lsb_histogram
    assert forth.mean_signed_lsb == -(back.mean_signed_lsb or 0.0)


@given(CODES, CODES)
def test_the_histogram_counts_every_element_and_agrees_with_the_maximum(x: Int8, y: Int8) -> None:
    found = pair.compare(answers(x), answers(y))
    expected = np.abs(x.astype(int) - y.astype(int))
    assert found.lsb_histogram is not None
    assert sum(found.lsb_histogram.values()) == found.elements
    assert max(map(int, found.lsb_histogram)) == found.max_lsb == expected.max()
    assert found.elements_different == (expected > 0).sum()
    assert [found.over(t) for t in (0, 2, 9)] == [
        int((expected.max(axis=1) > t).sum()) for t in (0, 2, 9)
    ]


@given(st.lists(CODES, min_size=1, max_size=5), st.randoms())
def test_the_fleet_does_not_care_for_order(tables: list[Int8], random: Any) -> None:
    rows = [answers(q, LABELS) for q in tables]
    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert fleet.spread(rows) == fleet.spread(shuffled)


@given(CODES, CODES)
def test_a_fleet_of_two_is_its_pair(x: Int8, y: Int8) -> None:
    a, b = answers(x, LABELS), answers(y, LABELS)
    assert fleet.spread([a, b]).unanimity.k == 7 - pair.compare(a, b).disagreement


def test_counts_by_hand() -> None:
    a = answers(i8([[10, 0], [10, 9], [0, 10], [5, 5]]))
    b = answers(i8([[10, 0], [9, 10], [0, 13], [5, 9]]))
    found = pair.compare(a, b)
    assert (found.n, found.bit_exact, found.elements_different) == (4, 1, 4)
    assert found.lsb_histogram == {"0": 4, "1": 2, "3": 1, "4": 1}
    assert found.mean_signed_lsb == (1 - 1 - 3 - 4) / 8
    assert found.disagreement == 2  # samples 1 and 3
    assert found.near_tie == 2  # margins 1|1 and 0|4: the smaller one counts
    assert found.over(2) == 2


def test_a_far_apart_disagreement_is_no_near_tie() -> None:
    found = pair.compare(answers(i8([[50, 0]])), answers(i8([[0, 50]])))
    assert (found.disagreement, found.near_tie) == (1, 0)


def test_flips_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    int8 = answers(i8([[1, 0], [0, 1], [0, 1], [0, 1]]), labels)
    fp32 = answers(f32([[1, 0], [1, 0], [1, 0], [0, 1]]), labels)
    found = device.against_fp32(int8, fp32)
    assert (found.c_to_i, found.i_to_c, found.disagreement.k) == (1, 1, 2)
    assert found.accuracy is not None
    assert found.accuracy.k == 3
    unlabelled = device.against_fp32(answers(i8([[1, 0]])), answers(i8([[0, 1]])))
    assert (unlabelled.accuracy, unlabelled.c_to_i, unlabelled.mcnemar_p) == (None, None, None)
    assert unlabelled.disagreement.k == 1


def test_instability_wants_one_right_and_one_wrong() -> None:
    labels = np.array([0, 0, 0])
    right, wrong = [2, 1, 0], [0, 2, 1]
    rows = [answers(i8(v), labels) for v in ([right, right, wrong], [right, wrong, wrong])]
    found = fleet.spread(rows)
    assert found.instability is not None
    assert (found.instability.k, found.unanimity.k) == (1, 2)
    assert fleet.spread([answers(i8([right]))]).instability is None


def test_unanimous_regression_is_the_agreement_of_the_extremes() -> None:
    task = Regression(1.0)
    rows = [answers(f32([[v], [0.0]]), task=task) for v in (0.0, 0.9, 1.8)]
    assert fleet.spread(rows).unanimity.k == 1
    assert fleet.spread(rows[:2]).unanimity.k == 2


def test_equal_nans_are_bit_exact_and_still_disagree() -> None:
    q = f32([[np.nan, 1.0], [0.0, 1.0]])
    a = answers(q, np.array([1, 1]))
    found = pair.compare(a, a)
    assert (found.bit_exact, found.disagreement, a.nonfinite) == (2, 1, 1)
    assert found.max_lsb is None
    spread = fleet.spread([a, a])
    assert spread.unanimity.k == 1
    assert device.accuracy(a) is not None
    assert device.against_fp32(a, a).disagreement.k == 1


def test_a_nan_beside_the_decision_is_counted() -> None:
    outputs = [Output("y", f32([[0, 1]])), Output("z", f32([[np.inf]]))]
    assert read(Classification(), outputs).nonfinite == 1


def test_floats_off_a_lattice_have_bits_and_decisions_but_no_lsb() -> None:
    a, b = (answers(f32([[0.123, v]])) for v in (0.5, 0.6))
    found = pair.compare(a, b)
    assert (found.max_lsb, found.lsb_histogram, found.over(2), found.near_tie) == (None,) * 4
    assert not found.lattice_differs
    assert (found.bit_exact, found.disagreement) == (0, 0)


def test_a_lattice_on_one_side_only_is_noticed() -> None:
    on, off = answers(f32([[0.0, 0.0]])), answers(f32([[0.033, 0.5]]))
    assert pair.compare(on, off).lattice_differs
    other = answers(i8([[0, 0]]), scale=0.2, zero_point=0)
    assert pair.compare(answers(i8([[0, 0]])), other).lattice_differs


def test_types_differ_bits_differ() -> None:
    found = pair.compare(answers(i8([[1, 2]])), answers(i16([[1, 2]])))
    assert (found.bit_exact, found.elements_different, found.max_lsb) == (0, 2, 0)


def test_lsb_of_several_outputs_are_taken_together() -> None:
    def two(x: int, y: int) -> Answers:
        return read(
            Classification(),
            [Output("a", i8([[x, 0]])), Output("b", i8([[[y], [0]]]))],
        )

    found = pair.compare(two(5, 1), two(5, 8))
    assert (found.elements, found.max_lsb, found.bit_exact) == (4, 7, 0)


def test_differences_beyond_the_last_bin_are_kept_together() -> None:
    found = pair.compare(answers(i32([[0, 9]])), answers(i32([[300, 100_000]])))
    assert found.lsb_histogram == {">255": 2}
    assert found.max_lsb == 99_991


def test_outputs_of_other_shapes_cannot_be_compared() -> None:
    with pytest.raises(TaskError, match="shapes"):
        pair.compare(answers(i8([[1, 2]])), answers(i8([[1, 2, 3]])))
    with pytest.raises(TaskError, match="same samples"):
        fleet.spread([answers(i8([[1, 2]])), answers(i8([[1, 2], [3, 4]]))])


def test_outputs_without_samples_are_refused() -> None:
    with pytest.raises(TaskError, match="samples"):
        answers(np.zeros((0, 3), np.int8))


def test_digests_tell_bytes_and_types_apart() -> None:
    q = i8([[1, 2]])
    assert answers(q).digest == answers(q.copy()).digest
    others = [answers(i8([[1, 3]])), answers(q.view(np.uint8)), answers(q, scale=0.2)]
    assert len({a.digest for a in [answers(q), *others]}) == 4


def test_fifty_rows_of_a_thousand_samples_take_seconds_at_most() -> None:
    rng = np.random.default_rng(1)
    rows = [answers(rng.integers(-9, 9, (1000, 10)).astype(np.int8)) for _ in range(50)]
    start = time.monotonic()
    for i, a in enumerate(rows):
        for b in rows[:i]:
            pair.compare(a, b)
    assert time.monotonic() - start < 20  # a quadratic slip takes minutes; the aim is about one


KINDS = st.sampled_from([np.int8, np.uint8, np.int16, np.int32])


@given(KINDS, st.data())
def test_blocks_count_what_a_naive_pass_over_wide_integers_counts(kind: Any, data: Any) -> None:
    x = data.draw(hnp.arrays(kind, (9, 5)))
    near = data.draw(hnp.arrays(kind, (9, 5), elements=st.integers(0, 9)))
    y = data.draw(st.sampled_from([x + near, near, np.where(near > 7, x + near, x)]))
    a, b = answers(x), answers(y.astype(kind))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair, "BLOCK", data.draw(st.sampled_from([1, 23, 1 << 17])))
        patch.setattr(pair, "SPARSE", data.draw(st.sampled_from([1, 8])))
        patch.setattr(pair, "UNSEEN", data.draw(st.integers(0, 2)))
        found = pair.compare(a, b)
    delta = a.codes[0].astype(object) - b.codes[0].astype(object)  # type: ignore[union-attr]
    distance = np.abs(delta).astype(np.int64)
    assert found.sample_lsb is not None
    assert found.sample_lsb.tolist() == distance.max(axis=1).tolist()
    assert found.max_lsb == distance.max()
    assert found.mean_signed_lsb == int(delta.sum()) / delta.size
    assert found.bit_exact == (distance == 0).all(axis=1).sum()
    assert found.elements_different == (distance > 0).sum()
    keys = [str(d) if d <= 255 else ">255" for d in distance.ravel().tolist()]
    assert found.lsb_histogram == {k: keys.count(k) for k in set(keys)}


def test_many_blocks_of_every_sort_count_as_a_naive_pass_does() -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(-128, 128, (20_000, 37), dtype=np.int8)
    y = x.copy()
    y[3000:6000] = np.clip(x[3000:6000].astype(int) + rng.integers(-3, 4, (3000, 37)), -128, 127)
    y[9000:16_000:97, 5] ^= 1
    y[17_000:18_000] = rng.integers(-128, 128, (1000, 37))
    delta = x.astype(int) - y
    counts = np.bincount(np.abs(delta).ravel())
    expected = {str(d): int(k) for d, k in enumerate(counts) if k}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair, "BLOCK", 4 << 10)
        for a, b in ((x, y), (np.asfortranarray(x), y), (x.astype(">i2"), y.astype(">i2"))):
            found = pair.compare(answers(a), answers(b))
            assert found.lsb_histogram == expected
            assert found.mean_signed_lsb == int(delta.sum()) / delta.size
            assert found.bit_exact == (delta == 0).all(axis=1).sum()
            assert found.sample_lsb is not None
            assert found.sample_lsb.tolist() == np.abs(delta).max(axis=1).tolist()


def test_codes_of_several_outputs_and_types_count_together() -> None:
    lattice: dict[str, Any] = {"scale": 0.5, "zero_point": 0}
    left = [Output("a", i8([[1, 2]]), **lattice), Output("b", f32([[0.5, 2.0, 3.0]]), **lattice)]
    right = [Output("a", i8([[1, 5]]), **lattice), Output("b", i8([[1, 4, 5]]), **lattice)]
    found = pair.compare(read(Classification(), left), read(Classification(), right))
    assert (found.bit_exact, found.elements, found.elements_different) == (0, 5, 4)
    assert found.lsb_histogram == {"0": 3, "1": 1, "3": 1}
    assert found.mean_signed_lsb == (-3 + 1) / 5
    assert not found.lattice_differs


def test_codes_are_held_once_and_widened_when_asked_for() -> None:
    q = i8([[-128, 127]])
    held = answers(q)
    assert held.narrow[0] is not None
    assert np.shares_memory(held.narrow[0], q)
    assert held.codes[0] is not None
    assert held.codes[0].dtype == np.int64
    dequantised = answers(q.astype(np.float32) * np.float32(0.1))
    assert dequantised.narrow[0] is not None
    assert dequantised.narrow[0].tolist() == [[-128, 127]]
    assert dequantised.narrow[0].itemsize <= 2
