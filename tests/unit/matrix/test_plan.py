from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InputError
from orchestrator.matrix.plan import Cell, expand, select
from tests.unit.matrix.build import inventory, matrix

FARM = inventory(
    ("pi-a", "rpi4", ["arm", "lab"]),
    ("pi-b", "rpi4", ["arm"]),
    ("five", "rpi5", ["arm"]),
    ("host", "pc", []),
)


def slots(*devices: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    plan = expand(matrix(("devices", list(devices))), FARM)
    return [(s.name, s.candidates) for s in plan.slots]


def test_ids_and_order() -> None:
    plan = expand(matrix(("devices", [{"name": "host"}, {"class": "rpi4", "count": 2}])), FARM)
    assert [c.id for c in plan.cells] == [
        f"{slot}-net.{file}-set-{condition}-{runtime}"
        for slot in ("host", "rpi4", "rpi4#2")
        for runtime, file in (("ort", "q"), ("lite", "i"))
        for condition in ("clean", "repeat:10")
    ]
    cell = plan.cells[-1]
    assert (cell.slot, cell.candidates) == ("rpi4#2", ("pi-a", "pi-b"))
    assert (cell.model, cell.file, cell.inputs) == ("net", "i", "set")
    assert (cell.condition, cell.runtime) == ("repeat:10", "lite")
    assert plan.cell(cell.id) is cell


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({"class": "rpi4"}, [("rpi4", ("pi-a", "pi-b"))]),
        ({"class": "rpi4", "count": 2}, [(s, ("pi-a", "pi-b")) for s in ("rpi4", "rpi4#2")]),
        ({"class": "rpi?"}, [("rpi4", ("pi-a", "pi-b")), ("rpi5", ("five",))]),
        ({"class": "*4"}, [("rpi4", ("pi-a", "pi-b"))]),
        ({"name": "pi-*"}, [("pi-a", ("pi-a",)), ("pi-b", ("pi-b",))]),
        ({"name": "pi-*", "count": 1}, [("pi-a", ("pi-a",))]),
        (
            {"tag": "arm"},
            [
                ("rpi4", ("pi-a", "pi-b")),
                ("rpi4#2", ("pi-a", "pi-b")),
                ("rpi5", ("five",)),
            ],
        ),
        ({"tag": "arm", "count": 1}, [("rpi4", ("pi-a", "pi-b"))]),
        ({"tag": "l?b"}, [("rpi4", ("pi-a",))]),
    ],
)
def test_slots(select: dict[str, Any], expected: list[tuple[str, tuple[str, ...]]]) -> None:
    assert slots(select) == expected


@pytest.mark.parametrize(
    ("select", "says"),
    [
        ({"class": "rpi3"}, "no device has the class 'rpi3' (the inventory has class: pc, rpi4"),
        ({"class": "rpi4", "count": 3}, "only 2 of 3 devices have the class 'rpi4'"),
        ({"class": "x*"}, "no device has the class 'x*'"),
        ({"class": "rpi*", "count": 2}, "only 1 of 2 devices have the class 'rpi5'"),
        ({"tag": "x*"}, "no device has the tag 'x*' (the inventory has tag: arm, lab)"),
        ({"name": "pi"}, "(the inventory has name: five, host, pi-a, pi-b)"),
        ({"name": "pi-*", "count": 3}, "only 2 of 3 devices have the name 'pi-*'"),
    ],
)
def test_a_selector_the_inventory_cannot_fill(select: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        slots(select)
    assert caught.value.id == "E-SELECT-DEVICE"
    assert says in str(caught.value)


def test_only_fitting_formats_and_globs() -> None:
    def ids(*edits: tuple[str, Any]) -> set[str]:
        cells = expand(matrix(("conditions", ["clean"]), *edits), FARM).cells
        return {f"{c.slot}:{c.file}:{c.runtime}" for c in cells}

    both = [{"class": "rpi4", "count": 2}, {"name": "host"}]
    assert ids(("devices", [{"name": "host"}])) == {"host:q:ort", "host:i:lite"}
    assert ids(("devices", both), ("runtimes.0.devices", "rpi4#2")) == {
        "rpi4#2:q:ort",
        *(f"{s}:i:lite" for s in ("rpi4", "rpi4#2", "host")),
    }
    assert ids(("devices", both), ("runtimes.0.devices", ["rpi4"]), ("runtimes.1.devices", [])) == {
        "rpi4:q:ort",
        "rpi4#2:q:ort",
    }
    only_host = ("devices", [{"name": "host"}])
    assert ids(only_host, ("runtimes.0.files", "net.q")) == {"host:q:ort", "host:i:lite"}
    assert ids(only_host, ("runtimes.0.files", "other.*")) == {"host:i:lite"}
    assert ids(only_host, ("runtimes.0.devices", "pc")) == {"host:q:ort", "host:i:lite"}


def test_no_cell_at_all_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        expand(matrix(("runtimes", [{"name": "o", "runtime": "onnxruntime", "files": "x"}])), FARM)
    assert caught.value.id == "E-SELECT-EMPTY"


def test_a_device_selected_twice_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        slots({"name": "pi-a"}, {"name": "pi-*"})
    assert caught.value.id == "E-MATRIX-DUPLICATE"
    assert "'pi-a-net.q-set-clean-ort'" in str(caught.value)


CELLS = expand(matrix(("devices", [{"class": "rpi4", "count": 2}, {"name": "host"}])), FARM).cells


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], lambda c: True),
        (["rpi4-*"], lambda c: c.slot in ("rpi4", "rpi4#2")),
        (["rpi4#2-*"], lambda c: c.slot == "rpi4#2"),
        (["*-ort"], lambda c: c.runtime == "ort"),
        (["host-*", "rpi4#2-*"], lambda c: c.slot != "rpi4"),
        (["!rpi4-*"], lambda c: c.slot == "host"),
        (["rpi4-*", "!rpi4#2-*"], lambda c: c.slot == "rpi4"),
        (["!*repeat*", "*-ort"], lambda c: c.condition == "clean" and c.runtime == "ort"),
        (["host-net.q-set-repeat:10-ort"], lambda c: c.id == "host-net.q-set-repeat:10-ort"),
    ],
)
def test_select(patterns: list[str], expected: Any) -> None:
    chosen = select(CELLS, patterns)
    assert chosen == tuple(c for c in CELLS if expected(c))
    assert chosen


@pytest.mark.parametrize("patterns", [["nothing"], ["rpi4"], ["HOST-*"], ["!*"]])
def test_an_empty_selection_is_an_error(patterns: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        select(CELLS, patterns)
    assert caught.value.id == "E-SELECT-EMPTY"
    assert CELLS[0].id in str(caught.value)


@given(
    st.lists(st.sampled_from(["rpi4", "rpi5", "pc"]), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from(["onnxruntime", "litert", "tflite-runtime"]), min_size=1, max_size=4),
    st.lists(st.sampled_from(["clean", "repeat:2", "repeat:9"]), min_size=1, unique=True),
)
def test_ids_are_unique_and_neighbours_share_slot_and_runtime(
    classes: list[str], runtimes: list[str], conditions: list[str]
) -> None:
    m = matrix(
        ("devices", [{"class": c} for c in classes]),
        ("runtimes", [{"name": f"r{i}", "runtime": r} for i, r in enumerate(runtimes)]),
        ("conditions", conditions),
    )
    plan = expand(m, FARM)
    assert len({c.id for c in plan.cells}) == len(plan.cells)
    assert len(plan.cells) == len(classes) * len(runtimes) * len(conditions)

    def place(cell: Cell) -> tuple[str, str]:
        return cell.slot, cell.runtime

    groups = [key for key, _ in itertools.groupby(plan.cells, place)]
    assert len(groups) == len(set(groups))
    assert expand(m, FARM) == plan
