from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.queue.placement import Prefer, choose_slot, matching, preferences

UNITS = ["u0", "u1", "u2", "u3"]
farms = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]), st.lists(st.sampled_from(UNITS), unique=True)
)


def most(slots: dict[str, list[str]], units: list[str] = UNITS) -> int:
    """Brute force: the most slots that ``units`` can serve."""
    if not units:
        return 0
    unit, rest = units[0], units[1:]
    served = [
        1 + most({s: c for s, c in slots.items() if s != slot}, rest)
        for slot, candidates in slots.items()
        if unit in candidates
    ]
    return max([most(slots, rest), *served])


@given(farms)
def test_matching_is_valid_and_largest(slots: dict[str, list[str]]) -> None:
    found = matching(slots)
    assert len(set(found.values())) == len(found)
    assert all(unit in slots[slot] for slot, unit in found.items())
    assert len(found) == most(slots)


@given(farms, st.permutations(UNITS))
def test_units_arriving_in_any_order_serve_as_many_slots_as_possible(
    slots: dict[str, list[str]], order: list[str]
) -> None:
    best, unbound, served = most(slots), dict(slots), 0
    gone: set[str] = set()
    for unit in order:
        here = {s: [u for u in c if u not in gone] for s, c in unbound.items()}
        slot = choose_slot(unit, here)
        gone.add(unit)
        if slot is not None:
            assert unit in slots[slot]
            del unbound[slot]
            served += 1
    assert served == best


def test_plan_order_decides_between_equal_slots() -> None:
    assert choose_slot("u1", {"b": ["u0", "u1"], "a": ["u0", "u1"]}) == "b"
    assert choose_slot("u1", {"b": ["u1", "u2"], "a": ["u1"]}) == "a"
    assert choose_slot("u3", {"b": ["u0"]}) is None


def test_same_environment_and_model_first_then_same_environment_then_anything() -> None:
    assert preferences(None) == ({},)
    assert preferences(Prefer("ort-1.31", "kws")) == (
        {"env_key": "ort-1.31", "model": "kws"},
        {"env_key": "ort-1.31"},
        {},
    )
