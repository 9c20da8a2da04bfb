"""Equal fingerprint, equal codes: how pairs of answers are counted."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fingerprint.hypothesis import (
    Check,
    Said,
    as_json,
    configuration,
    counted,
    lines,
)

ONE = Said("f" * 64, "one:litert/default", "a1", ("model", "x", "8", "1"), "out", "m.f with x")
TWO = replace(ONE, who="two:litert/default", attempt="a2")


def test_pairs_need_one_fingerprint_and_one_question() -> None:
    assert counted([ONE]).pairs == 0
    assert counted([ONE, TWO]).pairs == 1
    assert counted([ONE, replace(TWO, fingerprint="e" * 64)]).pairs == 0
    assert counted([ONE, replace(TWO, question=("model", "y", "8", "1"))]).pairs == 0
    assert counted([ONE, replace(ONE, attempt="later")]).pairs == 0
    assert counted([]).at_most is None


def test_an_exception_is_a_counterexample_with_its_attempts() -> None:
    other = replace(TWO, who="three:litert/default", attempt="a3", content="else")
    found = counted([ONE, TWO, other])
    assert (found.pairs, found.confirmed) == (3, 1)
    assert found.counterexamples == ((ONE, other),)
    assert list(lines(found))[1] == (
        "  counterexample: one:litert/default and three:litert/default on m.f with x,"
        " attempts a1 a3"
    )
    assert as_json(found)["counterexamples"][0]["attempts"] == ["a1", "a3"]


def test_an_answer_that_came_out_otherwise_later_is_remembered() -> None:
    """One answered differently than two, and then as two did: by then it is one that does both."""
    before = replace(ONE, attempt="a0", content="old")
    found = counted([before, TWO, ONE])
    assert found.counterexamples == ((before, TWO),)
    assert (found.pairs, found.confirmed) == (2, 0)  # one and two, one and itself
    assert found.between(ONE.who, TWO.who) == (before, TWO)
    assert found.between(ONE.who, "nobody yet") == (before, ONE)
    assert found.between(TWO.who, "nobody yet") is None


def test_one_that_contradicts_itself_is_apart_from_all() -> None:
    again = replace(ONE, attempt="later", content="else")
    found = counted([ONE, again])
    assert (found.pairs, found.confirmed, found.counterexamples) == (1, 0, ((ONE, again),))
    assert found.at_most == 1.0
    assert found.between(TWO.who, ONE.who) == (ONE, again)


SPOT = replace(TWO, attempt="s2", question=("model", "drawn", "3", "1"), content="some")


def test_a_spot_check_counts_against_its_representative() -> None:
    same = counted([ONE, SPOT], [Check(SPOT, ONE, 0)])
    assert (same.pairs, same.confirmed, same.apart) == (1, 1, {})
    unlike = counted([ONE, SPOT], [Check(SPOT, ONE, 5)])
    assert (unlike.pairs, unlike.confirmed) == (1, 0)
    assert unlike.counterexamples == ((SPOT, ONE),)
    assert unlike.between(ONE.who, TWO.who) == (SPOT, ONE)
    # Drawn alike twice it is one pair, which one difference is enough to unmake.
    again = replace(SPOT, attempt="s3", content="other")
    both = counted([ONE, SPOT], [Check(SPOT, ONE, 0), Check(again, ONE, 5)])
    assert (both.pairs, both.confirmed, both.counterexamples) == (1, 0, ((again, ONE),))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
def test_every_pair_is_counted_once(outputs: list[str]) -> None:
    answers = [replace(ONE, who=str(n), content=o) for n, o in enumerate(outputs)]
    found, n = counted(answers), len(outputs)
    equal = sum(a == b for i, a in enumerate(outputs) for b in outputs[i + 1 :])
    assert (found.pairs, found.confirmed) == (n * (n - 1) // 2, equal)
    kinds = len(set(outputs))
    assert len(found.counterexamples) == kinds * (kinds - 1) // 2


def test_kernels_that_fell_back_have_no_fingerprint() -> None:
    assert configuration("litert", "default") == "litert/default"
    assert configuration("litert", "reference") == "litert/reference"
    assert configuration("onnxruntime", "default") == "onnxruntime"
    lost = "fallback: XNNPACK not applied"
    assert configuration("litert", lost) == f"litert/{lost}"
    assert configuration("onnxruntime", "x=1") == "onnxruntime/x=1"


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8))
def test_whoever_answered_differently_is_apart(outputs: list[str]) -> None:
    answers = [replace(ONE, who=str(n), content=o) for n, o in enumerate(outputs)]
    pairs = itertools.combinations(enumerate(outputs), 2)
    expected = {frozenset((str(i), str(j))) for (i, a), (j, b) in pairs if a != b}
    assert counted(answers).apart.keys() == expected
