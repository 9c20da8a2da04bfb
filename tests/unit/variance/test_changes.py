"""What changed between two environments, and whether the bytes changed with it."""

from __future__ import annotations

from device_worker.environment import describe
from device_worker.wire import RuntimeSpec
from orchestrator.variance.changes import Change, changes, steps


def test_a_real_environment_has_not_changed_since_itself() -> None:
    told = describe(RuntimeSpec("litert"))
    assert changes(told, told) == []
    assert steps([("a", told), ("a", told), ("a", told)]) == []


def test_changes_are_named_by_path_and_lists_by_what_they_alone_have() -> None:
    told = describe(RuntimeSpec("litert"))
    other = {
        **told,
        "kernel": "7.0",
        "runtime": {**told["runtime"], "version": "9.9"},
        "isa_flags": [*told["isa_flags"][1:], "zz-new"],
        "runtimes": {},
    }
    assert changes(told, other) == [
        Change("isa_flags", told["isa_flags"][:1], ["zz-new"]),
        Change("kernel", told["kernel"], "7.0"),
        Change("runtime.version", told["runtime"]["version"], "9.9"),
    ]


def test_other_order_is_a_change() -> None:
    assert changes({"x": [1, 2]}, {"x": [2, 1]}) == [Change("x", [1, 2], [2, 1])]


def test_steps_tell_bytes_from_surroundings() -> None:
    old, new = {"kernel": "1"}, {"kernel": "2"}
    found = steps([("a", old), ("a", new), ("b", new), ("b", new), ("a", old)])
    assert [(s.index, s.identical, len(s.changes)) for s in found] == [
        (1, True, 1),
        (2, False, 0),
        (4, False, 1),
    ]


def test_one_answer_has_no_history() -> None:
    assert steps([("a", {})]) == []
    assert steps([]) == []
