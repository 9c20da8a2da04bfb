"""Which unit covers which, which leaves, and which cell is queued next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.matrix.by_class import Group, Member
from orchestrator.matrix.key import Key
from orchestrator.variance.class_cover import Settled, settle
from orchestrator.variance.observation import Observation
from tests.unit.signoff.build import clean, codes, failed, outputs

DRAWN = np.array([1, 4, 7])
ON = Key(version="2.3", build="b" * 64, core="aarch64 isa 1")
NAMES = ("a", "b", "c", "d")
GROUP = Group(
    fingerprint="f" * 64,
    version="2.3",
    members=tuple(Member(slot=n, full=f"{n}-full", spot=f"{n}-spot") for n in NAMES),
)


def full(name: str, kind: int = 0, **over: Any) -> Observation:
    """Units of one ``kind`` answer alike."""
    fields = {"cell": f"{name}-full", "key": ON} | over
    return clean(name, codes(10, by=kind), **fields)


def spot(name: str, kind: int = 0, **over: Any) -> Observation:
    fields = {"cell": f"{name}-spot", "key": ON, "samples": DRAWN} | over
    return clean(name, codes(10, by=kind)[DRAWN], condition="spot:3@1", **fields)


def settled(*seen: Observation) -> Settled:
    return settle(GROUP, {o.cell: o for o in seen})


def covered(found: Settled) -> dict[str, str]:
    return {each.spot: each.by for each in found.covered}


def test_one_stands_for_all() -> None:
    found = settled(full("a"), spot("b"), spot("c"), spot("d"))
    assert covered(found) == dict.fromkeys(("b-spot", "c-spot", "d-spot"), "a-full")
    assert (found.left, found.queue) == ((), ())


def test_nothing_is_decided_before_the_representative_answered() -> None:
    pending = replace(full("a"), status="pending", outputs=())
    assert settled(pending, spot("b"), spot("c", 1), spot("d")) == Settled()
    assert settled(full("a"), spot("b", status="pending", outputs=())) == Settled()


def test_a_difference_leaves_the_class_and_is_queued() -> None:
    found = settled(full("a"), spot("b"), spot("c", 1), spot("d"))
    assert found.queue == ("c-full",)
    [left] = found.left
    assert (left.spot, left.of, left.k, left.n) == ("c-spot", "a-full", 3, 3)
    assert left.why == "3 of 3 samples drawn differ from a"


def test_one_difference_in_one_sample_is_enough() -> None:
    other = codes(10)[DRAWN]
    other[2, 1] += 1
    found = settled(full("a"), replace(spot("b"), outputs=outputs(other)))
    assert (found.left[0].k, found.queue) == (1, ("b-full",))


def test_who_left_may_stand_for_the_next() -> None:
    first = [full("a"), spot("b"), spot("c", 1), spot("d", 1)]
    assert settled(*first).queue == ("c-full",)  # d waits: c may stand for it
    waiting = replace(full("c", 1), status="pending", outputs=())
    assert settled(*first, waiting).queue == ()
    found = settled(*first, full("c", 1))
    assert covered(found) == {"b-spot": "a-full", "d-spot": "c-full"}
    assert found.queue == ()
    assert [each.spot for each in found.left] == ["c-spot", "d-spot"]


def test_a_representative_without_an_answer_is_replaced() -> None:
    rest = [spot("b"), spot("c"), spot("d")]
    assert settled(failed("a", cell="a-full"), *rest).queue == ("b-full",)
    assert settled(full("a", codes_valid=False), *rest).queue == ("b-full",)
    found = settled(failed("a", cell="a-full"), *rest, full("b"))
    assert covered(found) == {"c-spot": "b-full", "d-spot": "b-full"}


def test_a_failed_spot_check_is_covered_by_nobody_and_queues_nothing() -> None:
    found = settled(full("a"), failed("b", cell="b-spot", condition="spot:3@1"))
    assert found == Settled()


def test_another_version_or_backend_is_another_arithmetic() -> None:
    newer = ON.model_copy(update={"version": "2.4"})
    found = settled(full("a"), spot("b", key=newer))
    assert found.queue == ("b-full",)
    assert found.left[0].why == (
        "the fingerprint of b is stale: runtime 2.4, not 2.3 (fix: assay fingerprint b)"
    )
    assert settled(full("a", key=Key()), spot("b")).queue == ("b-full",)
    assert settled(full("a"), spot("b", fallbacks=("Conv: CPU",))).queue == ("b-full",)


def test_an_answer_is_held_against_what_the_units_own_fingerprint_was_taken_on() -> None:
    other = Key(version="2.3", build="c" * 64, core="aarch64 isa 2")
    group = GROUP.model_copy(update={"keys": {"a": ON, "b": other}})
    as_taken = settle(group, {o.cell: o for o in (full("a"), spot("b", key=other))})
    assert covered(as_taken) == {"b-spot": "a-full"}  # two cores may well have one arithmetic
    for changed, word in (({"build": "d" * 64}, "build"), ({"core": "aarch64 isa 3"}, "core")):
        found = settle(
            group, {o.cell: o for o in (full("a"), spot("b", key=other.model_copy(update=changed)))}
        )
        assert (found.covered, found.queue) == ((), ("b-full",))
        assert f"fingerprint of b is stale: another {word}" in found.left[0].why
    swapped = settle(group, {o.cell: o for o in (full("a", key=other), spot("b", key=other))})
    assert "fingerprint of a is stale" in swapped.left[0].why


KINDS = st.lists(st.integers(0, 3), min_size=len(NAMES), max_size=len(NAMES))


@given(KINDS)
def test_in_the_end_everybody_ran_in_full_or_is_covered_by_an_equal(kinds: Sequence[int]) -> None:
    kind = dict(zip(NAMES, kinds, strict=True))
    seen = {o.cell: o for o in [full("a", kind["a"]), *(spot(n, kind[n]) for n in NAMES[1:])]}
    for _ in NAMES:
        found = settle(GROUP, seen)
        for id in found.queue:
            seen[id] = full(id[0], kind[id[0]])
    assert found.queue == ()
    stands = {each.spot[0]: each.by[0] for each in found.covered}
    in_full = {id[0] for id in seen if id.endswith("-full")}
    assert stands.keys() | in_full == set(NAMES)
    assert not stands.keys() & in_full
    assert all(kind[name] == kind[by] for name, by in stands.items())
    assert len(in_full) == len(set(kinds))  # one of each kind, and no more
