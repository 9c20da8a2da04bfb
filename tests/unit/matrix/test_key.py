"""What an arithmetic belongs to, and when a fingerprint does not speak for an answer."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.matrix.key import UNKNOWN, Key, key_of, stale

PI: dict[str, Any] = {
    "machine": "aarch64",
    "isa_flags": ["fp", "asimd"],
    "cores": [{"CPU implementer": "0x41", "CPU part": "0xd08", "microcode": "1"}] * 4,
    "runtime": {"version": "2.3.0", "native_sha256": "a" * 64, "distribution": "ai-edge-litert"},
}
ON = key_of(PI)


def changed(**facts: Any) -> Key:
    return key_of({**PI, **facts})


def test_equal_facts_speak_for_each_other() -> None:
    assert ON.unlike(changed()) is None
    assert stale("pi", ON, changed(isa_flags=["asimd", "fp"])) is None
    assert stale("pi", ON, changed(kernel="6.1", cores=PI["cores"][:2])) is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"runtime": PI["runtime"] | {"version": "2.4"}}, "runtime 2.4, not 2.3.0"),
        (
            {"runtime": PI["runtime"] | {"native_sha256": "b" * 64}},
            "another build of runtime 2.3.0 (bbbbbbbb, not aaaaaaaa)",
        ),
        (
            {"runtime": PI["runtime"] | {"native_sha256": None}},
            "another build of runtime 2.3.0 (unknown, not aaaaaaaa)",
        ),
        ({"isa_flags": ["fp", "asimd", "asimddp"]}, "another core (aarch64 "),
        ({"cores": [{"CPU implementer": "0x41", "CPU part": "0xd0b"}]}, "another core (aarch64 "),
        ({"machine": None}, "another core (unknown, not aarch64 "),
        ({"runtime": {}}, "runtime unknown, not 2.3.0"),
    ],
)
def test_what_changed_is_said_with_the_fix(facts: dict[str, Any], words: str) -> None:
    told = stale("pi", changed(**facts), ON)
    assert told is not None
    assert told.startswith(f"the fingerprint of pi is stale: {words}")
    assert told.endswith("(fix: assay fingerprint pi)")


def test_nothing_known_is_unknown() -> None:
    assert key_of({}) == UNKNOWN
    assert UNKNOWN.unlike(ON) is not None
