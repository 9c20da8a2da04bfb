"""Which stored fingerprint speaks for which answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from device_worker.wire import RuntimeSpec
from orchestrator.fingerprint.provenance import Prints, taken_on
from orchestrator.matrix.key import UNKNOWN
from orchestrator.store.records import FingerprintInfo
from orchestrator.variance.factors import Factors, factors
from orchestrator.variance.observation import Row
from tests.unit.variance.raters import PLAIN

FACTS: dict[str, Any] = {
    "machine": "aarch64",
    "isa_flags": ["asimd"],
    "cores": [{"CPU part": "0xd08"}],
    "runtime": {"version": "2.3.0", "native_sha256": "a" * 64},
}
OLD = {**FACTS, "runtime": {"version": "2.3.0", "native_sha256": "b" * 64}}


def taken(sha: str, facts: dict[str, Any], name: str = "litert/default") -> FingerprintInfo:
    document = {"sha256": sha, "taken_on": facts}
    return FingerprintInfo("pi", name, "2.3.0", "env", sha, document, 1.0)


def answer(facts: dict[str, Any], **over: Any) -> Factors:
    row = Row("net", "int8", "pi", "rpi4", False, "lite", "x", "clean")
    return replace(factors(row, RuntimeSpec("litert"), facts), **over)


def test_the_newest_that_was_taken_on_the_same_speaks() -> None:
    prints = Prints([taken("new", FACTS), taken("old", OLD), taken("ort", FACTS, "onnxruntime")])
    assert [f.sha256 for f in prints] == ["new", "ort"]
    assert getattr(prints.speaking(answer(FACTS)), "sha256", None) == "new"
    assert getattr(prints.speaking(answer(OLD)), "sha256", None) == "old"
    assert prints.stale(answer(FACTS)) is None
    assert "another build of runtime 2.3.0" in (prints.stale(answer(OLD)) or "")


def test_a_swapped_core_or_another_kernel_set_has_none() -> None:
    prints = Prints([taken("new", FACTS)])
    swapped = answer({**FACTS, "cores": [{"CPU part": "0xd0b"}]})
    assert prints.speaking(swapped) is None
    assert "another core" in (prints.stale(swapped) or "")
    other = answer(FACTS, kernels="fallback: XNNPACK not applied")
    assert prints.speaking(other) is None
    assert prints.stale(other) is None  # none is stored that could be stale
    assert Prints([]).speaking(answer(FACTS)) is None


def test_one_that_does_not_say_what_it_was_taken_on_speaks_for_nothing_known() -> None:
    dumb = FingerprintInfo("pi", "litert/default", None, "env", "s", {"sha256": "s"}, 1.0)
    assert taken_on(dumb) == UNKNOWN
    assert Prints([dumb]).speaking(answer(FACTS)) is None
    assert PLAIN.key != UNKNOWN
