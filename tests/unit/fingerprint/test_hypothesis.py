"""Equal fingerprint, equal codes: how pairs of answers are counted."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fingerprint.hypothesis import Said, apart, as_json, configuration, counted, lines

ONE = Said("f" * 64, "one:litert/default", "a1", ("model", "x", "8", "1"), ("out",))
TWO = replace(ONE, who="two:litert/default", attempt="a2")


def test_pairs_need_one_fingerprint_and_one_question() -> None:
    assert counted([ONE]).pairs == 0
    assert counted([ONE, TWO]).pairs == 1
    assert counted([ONE, replace(TWO, fingerprint="e" * 64)]).pairs == 0
    assert counted([ONE, replace(TWO, question=("model", "y", "8", "1"))]).pairs == 0
    assert counted([ONE, replace(ONE, attempt="later")]).pairs == 0
    assert counted([]).at_most is None


def test_an_exception_is_a_counterexample_with_its_attempts() -> None:
    other = replace(TWO, who="three:litert/default", attempt="a3", outputs=("else",))
    found = counted([ONE, TWO, other])
    assert (found.pairs, found.confirmed) == (3, 1)
    assert found.counterexamples == ((ONE, other),)
    assert list(lines(found))[1] == (
        "  counterexample: one:litert/default and three:litert/default, attempts a1 a3"
    )
    assert as_json(found)["counterexamples"][0]["attempts"] == ["a1", "a3"]


def test_of_one_unit_the_newest_answer_counts() -> None:
    assert counted([replace(ONE, outputs=("old",)), TWO, ONE]).counterexamples == ()


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
def test_every_pair_is_counted_once(outputs: list[str]) -> None:
    answers = [replace(ONE, who=str(n), outputs=(o,)) for n, o in enumerate(outputs)]
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
    answers = [replace(ONE, who=str(n), outputs=(o,)) for n, o in enumerate(outputs)]
    pairs = itertools.combinations(enumerate(outputs), 2)
    expected = {frozenset((str(i), str(j))) for (i, a), (j, b) in pairs if a != b}
    assert apart(answers) == expected


def test_an_answer_that_was_given_anew_sets_nobody_apart() -> None:
    assert apart([replace(ONE, outputs=("old",)), TWO, ONE]) == frozenset()
