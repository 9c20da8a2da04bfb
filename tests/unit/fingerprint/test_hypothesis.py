"""Equal fingerprint, equal codes: how pairs of answers are counted."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fingerprint.hypothesis import Said, as_json, configuration, counted, lines
from orchestrator.variance.factors import Factors

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
    plain = Factors("c", "k", "u", "s", "litert", "2.3", "b", 1, "default", "clean")
    assert configuration(plain) == "litert/default"
    assert configuration(replace(plain, kernels="reference")) == "litert/reference"
    assert configuration(replace(plain, runtime="onnxruntime")) == "onnxruntime"
    lost = replace(plain, kernels="fallback: XNNPACK not applied")
    assert configuration(lost) == "litert/fallback: XNNPACK not applied"
