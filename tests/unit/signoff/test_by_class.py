"""Rows that another one stands for: what their verdict may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestrator.errors import Exit
from orchestrator.matrix.by_class import ByClass, Group, Member
from orchestrator.signoff.judge import judge
from orchestrator.signoff.result import SignOff
from orchestrator.variance.observation import Observation
from tests.unit.signoff.build import clean, codes, device, failed, of, policy, repeated, truth

DRAWN = np.arange(0, 1000, 4)
SPOT = "spot:250@1"


def cell_of(name: str, condition: str) -> str:
    return f"net.int8@{name}/ort:{condition}"


def planned(*names: str) -> ByClass:
    members = tuple(Member(slot=n, full=cell_of(n, "clean"), spot=cell_of(n, SPOT)) for n in names)
    group = Group(fingerprint="f" * 64, version=None, members=members)
    return ByClass(confidence=0.95, share=0.01, groups=(group,))


def spot(name: str, q: Any = None, **over: Any) -> Observation:
    q = codes() if q is None else q
    return clean(name, q[DRAWN], condition=SPOT, samples=DRAWN, **over)


def decide(*seen: Observation, names: tuple[str, ...] = ("ref", "b"), **over: Any) -> SignOff:
    return judge(policy(**over), seen, {("net", "test"): truth()}, planned(*names))


@pytest.mark.parametrize(("accept", "verdict"), [(False, "covered-by-class"), (True, "pass")])
def test_covered(accept: bool, verdict: str) -> None:
    found = decide(*device("ref"), spot("b"), repeated("b"), accept_covered_by_class=accept)
    row = of(found, "b")
    assert row.verdict == found.verdict == verdict
    assert found.exit_code == (Exit.PASS if accept else Exit.INCONCLUSIVE)
    assert row.reasons == (
        "net.int8@ref/ort (pass) stands for it: none of 250 samples drawn"
        " differs, so at most 10 of 1000 do (95 % confidence)",
    )
    assert {g.gate: g.verdict for g in row.gates} == {
        **dict.fromkeys(("G0", "G2"), "pass"),
        **dict.fromkeys(("G3", "G5", "G6", "G7"), "not_applicable"),
    }
    assert row.accuracy is None
    assert of(found, "ref").by_class is not None


def test_what_is_a_units_own_is_not_covered() -> None:
    bad = repeated("b", repeat_mismatches=1)
    for accept in (False, True):
        found = decide(*device("ref"), spot("b"), bad, accept_covered_by_class=accept)
        assert of(found, "b").verdict == "fail"
    none = decide(*device("ref"), spot("b"), accept_covered_by_class=True)
    assert of(none, "b").verdict == "inconclusive"  # G2 asks for repeats of its own


@pytest.mark.parametrize(("accept", "verdict"), [(False, "covered-by-class"), (True, "fail")])
def test_covered_by_one_that_fails(accept: bool, verdict: str) -> None:
    bad = codes(flipped=400)
    seen = [*device("ref", bad), spot("b", bad), repeated("b")]
    found = decide(*seen, accept_covered_by_class=accept)
    assert of(found, "b").verdict == verdict
    assert found.verdict == "fail"


def test_emulated_stays_emulated() -> None:
    seen = [*device("ref"), spot("b", emulated=True), repeated("b", emulated=True)]
    found = decide(*seen, accept_covered_by_class=True)
    assert of(found, "b").verdict == "inconclusive"


def test_who_left_is_judged_by_its_own_answers() -> None:
    other = codes(by=1)
    seen = [*device("ref"), spot("b", other), clean("b", other), repeated("b")]
    found = of(decide(*seen), "b")
    assert found.by_class is not None
    assert (found.by_class.standing, found.by_class.differing) == ("left", 250)
    assert (found.verdict, found.accuracy is not None) == ("pass", True)


@pytest.mark.parametrize(
    "seen",
    [
        [*device("ref"), spot("b", codes(by=1)), repeated("b")],
        [failed("ref"), spot("b"), repeated("b")],
        [*device("ref"), failed("b", condition=SPOT, samples=DRAWN), repeated("b")],
    ],
    ids=["it differs", "nobody answered", "it failed"],
)
def test_whoever_nobody_stands_for_is_never_covered(seen: list[Observation]) -> None:
    found = of(decide(*seen, accept_covered_by_class=True), "b")
    assert found.by_class is not None
    assert found.by_class.standing == "alone"
    assert found.verdict in ("inconclusive", "error")


def test_without_the_plan_a_spot_check_covers_nothing() -> None:
    found = judge(policy(), [*device("ref"), spot("b")], {("net", "test"): truth()})
    assert of(found, "b").verdict == "inconclusive"
    assert "spot check" in " ".join(of(found, "b").reasons)
