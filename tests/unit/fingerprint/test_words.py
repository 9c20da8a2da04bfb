"""Names and differences of fingerprints, from documents made by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.fingerprint.classes import Member, classes, grouped_json, splits
from orchestrator.fingerprint.describe import (
    difference,
    identity,
    label,
    narrowed,
    plan_words,
    summary,
)
from orchestrator.fingerprint.hypothesis import Said, counted


def told(answer: str, *modes: str, error: str | None = None) -> dict[str, Any]:
    return {"answer": answer, "modes": list(modes), "error": error}


def nameless(answer: str) -> dict[str, Any]:
    return {"answer": answer, "modes": None, "error": None}


@pytest.mark.parametrize(
    ("probes", "wanted"),
    [
        ([told("a", "half-even", "half-up"), told("b", "half-even")], "half-even"),
        ([told("a", "half-even", "double"), told("b", "half-even", "double")], "half-even/double"),
        ([told("a", "half-up", "rndnu")], "half-up"),
        ([told("a", "rndnu")], "half-up"),
        (
            [told("a", "double-up"), told("b", "double-up"), told("c", "double", "half-up")],
            "double-up x2 + double/half-up x1",
        ),
        ([told("a", "float")], "float"),
        ([told("a", error="E-MODEL-LOAD")], "refused (E-MODEL-LOAD)"),
        (
            [told("a", "half-even"), told("b", error="E-MODEL-LOAD")],
            "half-even x1 + refused (E-MODEL-LOAD)",
        ),
    ],
)
def test_a_family_is_named_by_what_explains_all_of_it(probes: list[Any], wanted: str) -> None:
    assert label(probes) == wanted


def test_what_nothing_explains_is_named_by_its_hash() -> None:
    once = label([told("a"), told("b", "half-even")])
    assert once.startswith("half-even x1 + unmatched:")
    assert once == label([told("a"), told("b", "half-even")])
    assert once != label([told("other"), told("b", "half-even")])
    assert label([nameless("a")]).startswith("hash:")


def test_a_plan_says_how_much_of_each_operator_is_float() -> None:
    mixed = {"Conv": 2, "com.microsoft.QLinearConv": 1, "com.microsoft.QLinearAdd": 1, "Relu": 1}
    assert plan_words([mixed]) == "2 of 3 Conv in float"
    assert plan_words([mixed, {"Add": 1}]) == "1 of 2 Add, 2 of 3 Conv in float"
    assert plan_words([{"QLinearConv": 3, "DequantizeLinear": 1}]) == "all in integers"


def document(**modes: str) -> dict[str, Any]:
    """Families whose answers are what their modes say."""
    families: dict[str, Any] = {
        name.replace("_", " "): {"mode": mode, "sha256": mode, "probes": {}}
        for name, mode in modes.items()
    }
    plain = {"pack": "p", "families": families, "threads": {"2": []}}
    return plain | {"sha256": identity(plain)}


def with_plan(base: dict[str, Any], words: str) -> dict[str, Any]:
    made = copy.deepcopy(base)
    made["families"]["plan of a net int8"] = {
        "mode": "hash:1",
        "sha256": "same",
        "probes": {},
        "plan": words,
        "plan_sha256": words,
    }
    return made | {"sha256": identity(made)}


EVEN = document(QLinearConv_U8S8="half-even", MatMulInteger_U8S8="exact", ADD_int8="half-even")


def test_equal_fingerprints_are_the_same() -> None:
    assert difference(EVEN, copy.deepcopy(EVEN), "b") == "as b"


def test_saturation_is_said_first_and_once() -> None:
    haswell = document(
        QLinearConv_U8S8="saturates, half-even",
        MatMulInteger_U8S8="saturates, exact",
        ADD_int8="half-away",
    )
    assert difference(haswell, EVEN, "a72") == (
        "saturates U8S8 (QLinearConv, MatMulInteger);"
        " half-away instead of half-even in int8 (ADD); otherwise as a72"
    )
    assert "does not saturate U8S8" in difference(EVEN, haswell, "haswell")
    assert "saturates U8S8 (QLinearConv, MatMulInteger)" in summary(haswell)


def test_a_plan_splits_devices_whose_answers_are_the_same() -> None:
    a, b = with_plan(EVEN, "2 of 3 Conv in float"), with_plan(EVEN, "all in integers")
    assert a["sha256"] != b["sha256"]
    assert difference(a, b, "b") == (
        "runs 2 of 3 Conv in float, not all in integers, int8 (plan of a net); otherwise as b"
    )


def test_dependence_on_threads_splits_too() -> None:
    other = copy.deepcopy(EVEN)
    other["threads"] = {"2": ["probe"]}
    other["sha256"] = identity(other)
    assert difference(other, EVEN, "b") == "depends differently on 2 threads; otherwise as b"
    assert "1 answered differently with 2 threads" in summary(other)


def test_other_packs_asked_other_things() -> None:
    other = EVEN | {"pack": "q", "sha256": "x"}
    assert difference(other, EVEN, "b") == "not comparable with b: other probes were asked"
    (split,) = splits([Member("a", "ort", "1", EVEN), Member("b", "ort", "1", other)])
    assert split.families == []


def test_equal_ones_are_grouped_and_each_class_is_held_against_the_first() -> None:
    away = document(QLinearConv_U8S8="half-even", MatMulInteger_U8S8="exact", ADD_int8="half-away")
    members = [
        Member("a", "ort", "1", EVEN),
        Member("b", "ort", "1", away),
        Member("c", "ort", "2", EVEN),
        Member("a", "other", "1", away),
    ]
    assert [[m.name for m in group] for group in classes(members)] == [
        ["a:ort", "c:ort"],
        ["b:ort", "a:other"],
    ]
    (split,) = splits(members)
    assert (split.member.device, split.first.device) == ("b", "a")
    assert split.families == ["ADD int8"]


def test_whom_data_set_apart_is_in_another_class_and_the_data_are_named() -> None:
    away = document(QLinearConv_U8S8="half-even", MatMulInteger_U8S8="exact", ADD_int8="half-away")
    members = [Member(name, "ort", "1", EVEN) for name in ("a", "b", "c", "d")]
    members.insert(1, Member("other", "ort", "1", away))
    answers = [
        Said(EVEN["sha256"], f"{name}:ort", f"of-{name}", ("net", "x"), out, "net.int8 with x")
        for name, out in (("a", "1"), ("b", "2"), ("c", "1"), ("d", "2"))
    ]
    tested = counted(answers)
    assert [[m.device for m in group] for group in classes(members, tested)] == [
        ["a", "c"],
        ["b", "d"],
        ["other"],
    ]
    words = {split.member.device: split.words for split in splits(members, tested)}
    assert words.keys() == {"b", "other"}
    assert words["b"] == (
        "by its fingerprint as a, but data set them apart:"
        " a:ort and b:ort on net.int8 with x, attempts of-a of-b"
    )
    assert "half-away" in words["other"]
    told = grouped_json(members, tested)
    assert [len(group["members"]) for group in told["classes"]] == [2, 2, 1]
    # A fourth answer of b, the same as a's, brings nobody together again.
    later = counted([*answers, replace(answers[0], who="b:ort", attempt="late")])
    assert [[m.device for m in group] for group in classes(members, later)] == [
        ["a", "c"],
        ["b"],
        ["d"],
        ["other"],
    ]


def test_a_model_of_some_operators_may_not_tell_apart_what_the_whole_does() -> None:
    away = document(QLinearConv_U8S8="half-even", MatMulInteger_U8S8="exact", ADD_int8="half-away")
    away["threads"] = {"2": ["a probe of ADD"]}
    away["families"]["ADD int8"]["probes"] = {"a probe of ADD": {}}
    for globs, same in ((["Q*", "Mat*"], True), (["QLinearConv U8S8"], True), (["*int8"], False)):
        a, b = narrowed(EVEN, globs), narrowed(away, globs)
        assert (a["sha256"] == b["sha256"]) is same, globs
    assert narrowed(EVEN, ["*"])["sha256"] == EVEN["sha256"]
    assert narrowed(EVEN, ["nothing"])["families"] == {}
