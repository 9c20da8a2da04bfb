"""What the texts of conditions mean for planning, running and judging."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from orchestrator.conditions import CLEAN, Condition, ConditionError, Draw, condition, kinds, parse
from orchestrator.conditions.condition import HOLD_S, Heat, Kind, register
from orchestrator.matrix.fields import NAME_PATTERN


def test_every_kind_is_read_into_what_it_asks() -> None:
    assert parse(CLEAN) == Condition(CLEAN, timed=True)
    repeat = parse("repeat:100")
    assert (repeat.passes, repeat.few, repeat.factor) == (100, True, CLEAN)
    assert parse("soak:75C").heat == Heat(75.0, HOLD_S)
    assert parse("soak:62.5C/5s").heat == Heat(62.5, 5.0)
    assert parse("power:15W-6core").mode == "15W-6core"
    assert parse("order:0").order == 0
    assert parse("order:2147483647").order == 2**31 - 1
    assert parse("spot:30@7").draw == Draw(30, 7)
    assert kinds.spot(Draw(30, 7)) == "spot:30@7"


@pytest.mark.parametrize(
    "text",
    [
        *("", "clean:", "clean:1", "Clean", " clean", "clean\n", "cold", "repeat", "repeat:"),
        *("repeat:1", "repeat:0", "repeat:-2", "repeat:02", "repeat:100001", "repeat:2x"),
        *("soak:75", "soak:29C", "soak:111C", "soak:75C/", "soak:75C/0s", "soak:75c", "soak:1e2C"),
        *("power:", "power:a b", "power:-x", "order:", "order:-1", "order:00", "order:2147483648"),
        *("spot:0@1", "spot:5", "spot:5@", "spot:5@2147483648", "spot:@1", "repeat:\u0662"),
    ],
)
def test_all_else_is_refused_with_every_form(text: str) -> None:
    with pytest.raises(ConditionError, match="not a known condition") as caught:
        parse(text)
    for name in condition.KINDS:
        assert f"'{name}" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *(("clean", 1000), ("order:3", 1001), ("power:5W", 1000), ("repeat:50", 400)),
        *(("soak:75C", 8), ("spot:30@1", 30), ("spot:3000@1", 1000)),
    ],
)
def test_inferences_of_a_set(text: str, count: int) -> None:
    assert parse(text).inferences(1000, 8) == count
    assert parse(text).inferences(0, 8) == (text == "order:3")


def test_what_a_model_is_fed() -> None:
    assert {parse(t).tensor("x") for t in ("clean", "repeat:2", "order:1", "soak:60C")} == {"x"}
    assert parse("spot:5@1").tensor("x") == "x/spot:5@1"


def test_a_soak_at_the_ceiling_never_gets_there() -> None:
    heat = parse("soak:75C").heat
    assert heat is not None
    assert heat.above(None) is None
    assert heat.above(75.5) is None
    assert "75 °C" in (heat.above(75) or "")


def test_a_power_mode_is_a_name_as_everywhere() -> None:
    assert kinds._MODE.pattern == NAME_PATTERN


@pytest.fixture
def twice() -> Iterator[Kind]:
    """A kind from outside."""

    def read(text: str, rest: str | None) -> Condition | None:
        return Condition(text, passes=2) if re.fullmatch("all", rest or "") else None

    yield register(Kind("twice", "'twice:all'", read))
    del condition.KINDS["twice"]
    parse.cache_clear()


def test_a_kind_from_outside_is_read_like_any_other(twice: Kind) -> None:
    assert parse("twice:all").inferences(10, 8) == 20
    with pytest.raises(ConditionError) as caught:
        parse("twice:some")
    assert twice.form in caught.value.fix
    with pytest.raises(ValueError, match="registered already"):
        register(twice)
