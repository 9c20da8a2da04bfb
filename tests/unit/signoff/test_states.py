"""Cells on a device in another state: soaked, under a power mode, or with shuffled samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestrator.signoff.result import Reorder, Repeat
from orchestrator.variance.observation import Observation
from orchestrator.variance.repeatability import Repeated, Unlike, repeated, unlike
from tests.unit.signoff import build
from tests.unit.signoff.build import (
    clean,
    codes,
    decide,
    gate,
    of,
    outputs,
    powered,
    shuffled,
    soaked,
)


def both(*more: Any) -> Any:
    """The row with a clean and a repeat cell, and these; beside a reference."""
    return decide(build.device("ref"), build.device("rpi4"), *more)


def test_a_soak_that_reached_its_target_passes_and_is_shown() -> None:
    row = of(both(soaked()))
    assert row.verdict == "pass", row.reasons
    cell = next(c for c in row.cells if c.condition == "soak:75C")
    assert cell.soak is not None
    assert (cell.soak.target_c, cell.soak.reached, cell.soak.inferences) == (75.0, True, 900)
    shown = next(c for c in both(soaked()).to_json()["rows"][1]["cells"] if c["soak"])
    assert (shown["soak"]["max_c"], shown["power"]) == (76.5, None)


def test_a_soak_that_did_not_reach_its_target_covers_nothing() -> None:
    row = of(both(soaked(reached=False, max_c=61.25)))
    assert row.verdict == "inconclusive"
    assert row.reasons == ("soak:75C: soak target not reached: 61.25 °C of 75 °C in 120 s",)
    assert gate(row, "G2").verdict == "pass", "its repeats were bit-equal all the same"


def test_an_unknown_temperature_reached_nothing() -> None:
    row = of(both(soaked(reached=False, max_c=None)))
    assert row.verdict == "inconclusive"
    assert "temperature unknown" in row.reasons[0]


@pytest.mark.parametrize("reached", [True, False])
def test_one_byte_that_heat_changed_is_a_fault(reached: bool) -> None:
    row = of(both(soaked(mismatches=1, reached=reached)))
    assert row.verdict == "fail"
    assert "1 of 1692 repeated outputs differ from the first pass" in gate(row, "G2").reason
    assert row.repeat is not None
    assert row.repeat.mismatches == 1


@pytest.mark.parametrize(
    ("inferences", "verdict"), [(8 * 99, "pass"), (8 * 99 - 1, "inconclusive"), (7, "inconclusive")]
)
def test_a_soak_is_evidence_of_repeatability(inferences: int, verdict: str) -> None:
    assert gate(of(decide(clean(), soaked(inferences=inferences))), "G2").verdict == verdict


def test_a_mismatch_in_less_than_one_pass_counts() -> None:
    row = of(decide(clean(), soaked(inferences=5, mismatches=1)))
    assert gate(row, "G2").verdict == "fail"


def test_a_power_mode_must_not_change_a_byte() -> None:
    assert of(both(powered())).verdict == "pass"
    row = of(both(powered(q=codes(flipped=3))))
    assert row.verdict == "fail"
    assert gate(row, "G2").reason == (
        "G2 repeatability: 3 of 1000 outputs under power:save differ from the clean ones"
    )
    assert gate(row, "G2").attempts == (
        "a-rpi4-ort-repeat:100",
        "a-rpi4-ort-power:save",
        "a-rpi4-ort-clean",
    )


def test_a_soaked_first_pass_must_not_differ_either() -> None:
    row = of(both(soaked(q=codes(8, by=1))))
    assert "8 of 8 outputs under soak:75C differ from the clean ones" in gate(row, "G2").reason


def test_another_repeat_cell_is_not_held_against_the_clean_one() -> None:
    """Its own passes are; that it agrees with other cells is not what it was asked for."""
    assert gate(of(decide(clean(q=codes(flipped=5)), build.repeated())), "G2").verdict == "pass"


def test_an_ok_cell_whose_state_nobody_recorded_covers_nothing() -> None:
    for cell in (soaked(soak=None), powered(power=None)):
        row = of(both(cell))
        assert row.verdict == "inconclusive"
        assert "the device's state was not recorded" in row.reasons[0]


def test_a_power_mode_that_is_not_covered_stays_inconclusive() -> None:
    row = of(both(powered(status="not_available", outputs=(), power=None, error="not covered")))
    assert row.verdict == "inconclusive"


def test_passes_of_a_cell() -> None:
    assert repeated(clean()) is None
    assert repeated(build.repeated(repeats=3, repeat_mismatches=2)) == Repeated(3, 8, 16, 2)
    assert repeated(soaked(inferences=20)) == Repeated(3, 8, 20, 0)
    assert repeated(soaked(inferences=0)) is None


def test_cells_are_compared_over_the_samples_that_both_ran() -> None:
    assert unlike(powered(q=codes(8, flipped=2)), clean()) == Unlike(2, 8)
    assert unlike(powered(outputs=()), clean()) is None
    other = outputs(codes(8).astype(np.int16))
    assert unlike(powered(outputs=other), clean()) == Unlike(8, 8)


def test_an_order_that_changes_nothing_passes() -> None:
    row = of(both(shuffled()))
    assert row.verdict == "pass"
    assert row.order == Reorder(None, 0, 1000, 0, 1)
    assert of(both()).order is None


@pytest.mark.parametrize(
    ("cell", "order", "reason"),
    [
        (
            shuffled(q=codes(flipped=3)),
            Reorder("order dependence", 3, 1000, 0, 1),
            "G2 repeatability: order dependence: 3 of 1000 outputs under order:7 differ from the"
            " clean ones",
        ),
        (
            shuffled(same=False),
            Reorder("state carry-over", 0, 1000, 1, 1),
            "G2 repeatability: state carry-over: sample 4 gave other bytes again at the end of"
            " order:7, unless the unit does not repeat itself",
        ),
    ],
)
def test_what_an_order_changes_is_named_and_fails(
    cell: Observation, order: Reorder, reason: str
) -> None:
    row = of(both(cell))
    assert row.verdict == "fail"
    assert row.order == order
    assert row.repeat == Repeat(100, 8, 0), "its repeats are another matter"
    assert gate(row, "G2").reason == reason


def test_several_orders_are_counted_together() -> None:
    cells = [shuffled(same=False), shuffled(q=codes(flipped=2), condition="order:8")]
    assert of(both(*cells)).order == Reorder("state carry-over", 2, 2000, 1, 2)


def test_an_order_cell_that_was_not_shuffled_covers_nothing() -> None:
    row = of(both(shuffled(order=None)))
    assert row.verdict == "inconclusive"
    assert "the worker did not shuffle the samples" in row.reasons[0]


def test_an_order_without_a_clean_cell_compares_nothing() -> None:
    row = of(decide(shuffled()))
    assert row.order == Reorder(None, 0, 0, 0, 1)
    assert row.verdict != "pass"
