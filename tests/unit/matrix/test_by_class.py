"""Which cells become spot checks, and of what."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from orchestrator.matrix.by_class import Group, Kind, group
from orchestrator.matrix.plan import Cell, cell_id
from orchestrator.variance.spot import sample_size

SOME = Kind("f" * 64, "2.3", emulated=False)


def cell(slot: str, condition: str = "clean", inputs: str = "x", runtime: str = "ort") -> Cell:
    names = ("net", "int8", inputs, condition, runtime)
    return Cell(cell_id(slot, *names), slot, (slot,), *names)


def divided(
    cells: list[Cell],
    kinds: Mapping[str, Kind | None] | None = None,
    apart: frozenset[frozenset[str]] = frozenset(),
    first: str = "",
    samples: int = 500,
) -> tuple[tuple[Cell, ...], tuple[Group, ...]]:
    return group(
        cells,
        kind_of=lambda c: (kinds or {}).get(c.slot, SOME),
        apart=lambda a, b: frozenset((a.slot, b.slot)) in apart,
        rank=lambda c: c.slot != first,
        samples=lambda inputs: samples,
        size=partial(sample_size, share=0.01, confidence=0.95),
        seed=7,
    )


def stands(groups: tuple[Group, ...]) -> list[list[str]]:
    return [[m.slot for m in g.members] for g in groups]


def test_the_first_is_the_representative_and_the_order_stays() -> None:
    cells, groups = divided([cell("a"), cell("b"), cell("c")])
    assert [(c.slot, c.condition) for c in cells] == [
        ("a", "clean"),
        ("b", "spot:225@7"),
        ("c", "spot:225@7"),
    ]
    assert cells[1].id == "b-net.int8-x-spot:225@7-ort"
    [found] = groups
    assert [m.full for m in found.members] == [cell(s).id for s in "abc"]
    assert (found.fingerprint, found.version) == (SOME.fingerprint, SOME.version)


def test_a_candidate_for_the_reference_represents() -> None:
    cells, groups = divided([cell("a"), cell("b")], first="b")
    assert [c.condition for c in cells] == ["spot:225@7", "clean"]
    assert stands(groups) == [["b", "a"]]


def test_only_clean_cells_have_a_stand_in() -> None:
    asked = [cell("a"), cell("a", "repeat:100"), cell("b"), cell("b", "repeat:100")]
    cells, _ = divided(asked)
    assert [c.condition for c in cells] == ["clean", "repeat:100", "spot:225@7", "repeat:100"]


def test_the_unknown_run_in_full() -> None:
    cells, groups = divided([cell("a"), cell("b"), cell("c")], {"b": None})
    assert [c.condition for c in cells] == ["clean", "clean", "spot:225@7"]
    assert stands(groups) == [["a", "c"]]


def test_emulated_and_real_units_never_stand_for_each_other() -> None:
    kinds = {"b": Kind(SOME.fingerprint, SOME.version, emulated=True)}
    assert divided([cell("a"), cell("b")], kinds)[1] == ()


def test_whoever_answered_differently_before_is_kept_apart() -> None:
    apart = frozenset({frozenset("ab"), frozenset("ad")})
    _, groups = divided([cell(s) for s in "abcd"], apart=apart)
    assert stands(groups) == [["a", "c"], ["b", "d"]]


def test_one_question_one_group() -> None:
    other = [cell(s, inputs="y") for s in "ab"] + [cell(s, runtime="ort2") for s in "ab"]
    cells, groups = divided([cell("a"), cell("b"), *other])
    assert len(groups) == 3
    assert sum(c.condition == "clean" for c in cells) == 3


def test_nothing_is_gained_by_drawing_all() -> None:
    asked = [cell("a"), cell("b")]
    cells, groups = divided(asked, samples=10)
    assert (list(cells), groups) == (asked, ())
