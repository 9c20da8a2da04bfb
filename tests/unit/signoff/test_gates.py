"""Each gate at its boundaries: the bound decides, not the observed rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.signoff import gates
from orchestrator.variance.intervals import lower_bound, upper_bound
from orchestrator.variance.lattice import Output
from tests.unit.signoff.build import (
    clean,
    codes,
    decide,
    device,
    gate,
    of,
    policy,
    repeated,
    truth,
)
from tests.unit.variance.arrays import f32


@pytest.mark.parametrize(("n", "verdict"), [(597, "inconclusive"), (598, "pass")])
def test_zero_events_pass_half_a_percent_from_598_samples(n: int, verdict: str) -> None:
    found = gates.at_most("G6", 0, n, 0.005, 0.95, "samples differ", ())
    assert found.verdict == verdict
    assert ("takes 598 samples" in found.reason) == (verdict == "inconclusive")


@pytest.mark.parametrize("n", [597, 598])
def test_the_same_boundary_through_the_judge(n: int) -> None:
    ref, other = device("ref", codes(n)), device("rpi4", codes(n))
    found = gate(of(decide(ref, other, truth_=truth(n))), "G6")
    assert found.verdict == ("pass" if n == 598 else "inconclusive")
    assert (found.observed, found.n, found.limit) == (0.0, n, 0.005)


@given(
    st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.floats(0.001, 0.3),
)
def test_verdicts_follow_the_bounds(count: tuple[int, int], limit: float) -> None:
    k, n = count
    found = gates.at_most("G5", k, n, limit, 0.95, "samples differ", ())
    low, high = lower_bound(k, n), upper_bound(k, n)
    expected = "pass" if high <= limit else "fail" if low > limit else "inconclusive"
    assert found.verdict == expected
    assert found.bound == (low if expected == "fail" else high)
    if found.verdict == "pass":
        assert k / n <= limit
    if found.verdict == "fail":
        assert k / n > limit


def test_an_observed_rate_over_the_limit_is_not_yet_a_fail() -> None:
    found = gates.at_most("G6", 6, 1000, 0.005, 0.95, "samples differ", ())
    assert (found.verdict, found.observed) == ("inconclusive", 0.006)


def test_an_observed_rate_within_the_limit_is_not_yet_a_pass() -> None:
    found = gates.at_most("G6", 4, 1000, 0.005, 0.95, "samples differ", ())
    assert (found.verdict, found.observed) == ("inconclusive", 0.004)


@pytest.mark.parametrize(("k", "verdict"), [(38, "pass"), (39, "inconclusive"), (63, "fail")])
def test_g5_on_a_thousand_samples(k: int, verdict: str) -> None:
    result = of(decide(device("rpi4", codes(flipped=k))))
    assert gate(result, "G5").verdict == verdict
    assert result.fp32 is not None
    assert result.fp32.disagreement.k == k


def test_g5_is_not_decided_by_mcnemar() -> None:
    """Balanced flips have p = 1, lopsided ones p < .05; the gate sees their number only."""
    labels = np.zeros(1000, np.int64)
    labels[:100] = 1
    q = codes()
    q[50:150] = codes(100, flipped=100)
    found = of(decide(device("rpi4", q), truth_=truth(labels=labels)))
    assert found.fp32 is not None
    assert (found.fp32.c_to_i, found.fp32.i_to_c, found.fp32.mcnemar_p) == (50, 50, 1.0)
    assert gate(found, "G5").verdict == "fail"
    lopsided = of(decide(device("rpi4", codes(flipped=10))))
    assert lopsided.fp32 is not None
    assert lopsided.fp32.mcnemar_p is not None
    assert lopsided.fp32.mcnemar_p < 0.05
    assert gate(lopsided, "G5").verdict == "pass"


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [(0, "pass"), (4, "pass"), (5, "inconclusive"), (12, "inconclusive"), (20, "fail")],
)
def test_g3_by_the_paired_bound(lost: int, verdict: str) -> None:
    found = gate(of(decide(device("rpi4", codes(flipped=lost)))), "G3")
    assert found.verdict == verdict
    assert found.observed == pytest.approx(1 - lost / 1000)


def test_g3_divides_by_fp32_accuracy() -> None:
    """Half of the labels are wrong for FP32 too: the same five losses weigh double."""
    labels = np.zeros(1000, np.int64)
    labels[500:] = 1
    found = gate(of(decide(device("rpi4", codes(flipped=4)), truth_=truth(labels=labels))), "G3")
    assert found.observed == pytest.approx(1 - 4 / 500)
    assert found.verdict == "inconclusive"


def test_g3_cannot_divide_by_nothing() -> None:
    labels = np.ones(1000, np.int64)
    found = gate(of(decide(device(), truth_=truth(labels=labels))), "G3")
    assert (found.verdict, found.observed) == ("inconclusive", None)
    assert "right on no sample" in found.reason


@pytest.mark.parametrize(
    ("cell", "verdict"),
    [
        ({}, "pass"),
        ({"repeat_mismatches": 1}, "fail"),
        ({"repeats": 99}, "inconclusive"),
        ({"repeat_samples": 7}, "inconclusive"),
        ({"repeats": 10, "repeat_mismatches": 1}, "fail"),
    ],
)
def test_g2(cell: dict[str, Any], verdict: str) -> None:
    result = of(decide(clean(), repeated(**cell)))
    assert gate(result, "G2").verdict == verdict
    assert result.repeat is not None


def test_g2_without_repeats_is_inconclusive() -> None:
    result = of(decide(clean()))
    assert gate(result, "G2").verdict == "inconclusive"
    assert result.repeat is None


def test_g2_many_repeats_of_few_samples_do_not_add_up() -> None:
    long = repeated(condition="repeat:1000", repeats=1000, repeat_samples=1)
    wide = repeated(condition="repeat:2", repeats=2, repeat_samples=500)
    assert gate(of(decide(clean(), long, wide)), "G2").verdict == "inconclusive"


def test_g2_is_met_by_the_cell_that_meets_it() -> None:
    longer = repeated(condition="repeat:1000", repeats=1000, repeat_samples=1)
    result = of(decide(clean(), repeated(), longer))
    assert gate(result, "G2").verdict == "pass"
    assert result.repeat is not None
    assert (result.repeat.count, result.repeat.samples) == (100, 8)


def test_g2_sees_a_mismatch_in_any_cell() -> None:
    short = repeated(condition="repeat:2", repeats=2, repeat_mismatches=1)
    result = of(decide(clean(), repeated(), short))
    assert gate(result, "G2").verdict == "fail"
    assert len(gate(result, "G2").attempts) == 2


def test_g0() -> None:
    fallen = device(fallbacks=("XNNPACK could not be applied",))
    found = gate(of(decide(fallen)), "G0")
    assert found.verdict == "fail"
    assert "XNNPACK could not be applied" in found.reason
    assert gate(of(decide(device(planned_backend=""))), "G0").verdict == "inconclusive"
    assert gate(of(decide(device())), "G0").verdict == "pass"


@pytest.mark.parametrize(
    ("wrong", "verdict"), [(0, "pass"), (4, "pass"), (5, "inconclusive"), (20, "fail")]
)
def test_g7_counts_samples_beyond_the_limit(wrong: int, verdict: str) -> None:
    q = codes(by=2)  # two steps everywhere are allowed
    q[:wrong, 1] += 1
    found = gate(of(decide(device("ref"), device("rpi4", q))), "G7")
    assert found.verdict == verdict
    assert found.observed == wrong / 1000


def floats(offset: float) -> tuple[Output, ...]:
    values = np.tile(f32([20.0, offset]), (1000, 1))
    return (Output("logits", values, 0.5, 0, -128, 127),)


def test_g7_is_not_applicable_off_any_lattice() -> None:
    ref, other = clean("ref", outputs=floats(0.123)), clean(outputs=floats(0.124))
    found = gate(of(decide(ref, other)), "G7")
    assert found.verdict == "not_applicable"


def test_g7_is_inconclusive_where_one_side_left_the_lattice() -> None:
    """A float fallback must not escape the gate by being a float fallback."""
    found = gate(of(decide(clean("ref"), clean(outputs=floats(0.123)))), "G7")
    assert found.verdict == "inconclusive"


NEAR = {"gates": {"G6": {"max_disagreement": 0.5, "min_near_tie": 0.5}}}


@pytest.mark.parametrize(
    ("step", "flipped", "verdict"), [(1, 5, "pass"), (1, 4, "inconclusive"), (40, 5, "fail")]
)
def test_near_ties_are_gated_where_the_policy_asks(step: int, flipped: int, verdict: str) -> None:
    ref, other = codes(), codes()
    ref[:flipped, 1] = 40 - step
    other[:flipped, 1] = 40 + step
    result = of(decide(device("ref", ref), device("rpi4", other), policy_=policy(**NEAR)))
    assert gate(result, "G6-near-tie").verdict == verdict
    assert result.vs_reference is not None
    assert result.vs_reference.near_tie is not None
    assert result.vs_reference.near_tie.n == flipped


def test_near_ties_need_a_disagreement_and_a_lattice() -> None:
    same = of(decide(device("ref"), device(), policy_=policy(**NEAR)))
    assert gate(same, "G6-near-tie").verdict == "not_applicable"
    ref, other = clean("ref", outputs=floats(0.123)), clean(outputs=floats(20.1))
    unknown = of(decide(ref, other, policy_=policy(**NEAR)))
    assert gate(unknown, "G6-near-tie").verdict == "inconclusive"


def test_near_ties_are_only_described_by_default() -> None:
    result = of(decide(device("ref"), device("rpi4", codes(flipped=1))))
    assert [g.gate for g in result.gates] == ["G0", "G2", "G3", "G5", "G6", "G7"]


def test_every_gate_traces_to_attempts() -> None:
    result = of(decide(device("ref"), device()))
    by_gate = {g.gate: g.attempts for g in result.gates}
    mine, theirs = "a-rpi4-ort-clean", "a-ref-ort-clean"
    assert by_gate["G0"] == (mine, "a-rpi4-ort-repeat:100")
    assert by_gate["G2"] == ("a-rpi4-ort-repeat:100",)
    assert by_gate["G3"] == by_gate["G5"] == (mine, "fp32-1")
    assert by_gate["G6"] == by_gate["G7"] == (mine, theirs)
