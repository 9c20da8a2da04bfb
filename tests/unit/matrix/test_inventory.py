from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InputError
from orchestrator.matrix import yamlfile
from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.loader import load_inventories
from tests.unit.matrix.build import written

LOCAL = {"type": "local"}
SSH = {"type": "ssh", "host": "pi"}


def data(**changes: Any) -> dict[str, Any]:
    device = {"name": "d", "class": "c", "transport": LOCAL, "python": {"default": "python3"}}
    return {"version": 1, "devices": [device | changes]}


def python(tmp_path: Path, transport: dict[str, Any], path: str) -> str:
    given = data(transport=transport, python={"default": path})
    return yamlfile.load(written(tmp_path, given), Inventory).devices[0].python["default"]


def test_interpreters_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert python(tmp_path, LOCAL, "${PYTHON}") == sys.executable
    assert python(tmp_path, LOCAL, "../v/bin/python") == str(tmp_path.parent / "v/bin/python")
    assert python(tmp_path, LOCAL, "~/v/bin/python") == "/home/someone/v/bin/python"
    assert python(tmp_path, LOCAL, "/v/bin/python") == "/v/bin/python"
    assert python(tmp_path, LOCAL, "python3") == "python3"


def test_a_virtual_environments_link_is_kept(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    assert python(tmp_path, LOCAL, "./python") == str(tmp_path / "python")


@pytest.mark.parametrize("path", ["${PYTHON}", "venv/bin/python", "~/python", ""])
def test_interpreters_elsewhere_are_absolute_or_bare(tmp_path: Path, path: str) -> None:
    assert python(tmp_path, SSH, "/usr/bin/python3") == "/usr/bin/python3"
    assert python(tmp_path, SSH, "python3") == "python3"
    with pytest.raises(InputError, match="another machine") as caught:
        python(tmp_path, SSH, path)
    assert "devices[0].python.default" in str(caught.value)


def test_a_runtimes_own_interpreter_comes_first(tmp_path: Path) -> None:
    given = data(python={"default": "p", "litert": "q"})
    device = yamlfile.load(written(tmp_path, given), Inventory).device("d")
    assert [device.interpreter(r) for r in ("litert", "onnxruntime")] == ["q", "p"]
    given = data(python={"litert": "q"})
    device = yamlfile.load(written(tmp_path, given), Inventory).device("d")
    assert device.interpreter("onnxruntime") is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("../.assay/device", "{parent}/.assay/device"),
        ("/srv/device", "/srv/device"),
        ("~/device", "~/device"),
    ],
)
def test_a_local_root_belongs_to_the_inventorys_folder(
    tmp_path: Path, given: str, expected: str
) -> None:
    found = yamlfile.load(written(tmp_path, data(transport=LOCAL | {"root": given})), Inventory)
    assert found.devices[0].transport.root == expected.format(parent=tmp_path.parent)
    there = yamlfile.load(written(tmp_path, data(transport=SSH | {"root": "up/to"})), Inventory)
    assert there.devices[0].transport.root == "up/to", "that is a folder on the other machine"


def test_the_committed_local_device_stays_in_the_repository() -> None:
    repository = Path(__file__).parents[3]
    found = load_inventories((repository / "matrices/inventories/lab.yaml",))
    assert found.device("host").transport.root == str(repository / ".assay/device/host")


@pytest.mark.parametrize(
    ("given", "expected"), [(1000, 1000), ("512KiB", 512 << 10), ("1.5GiB", 3 << 29)]
)
def test_sizes(tmp_path: Path, given: int | str, expected: int) -> None:
    found = yamlfile.load(written(tmp_path, data(cache_limit=given)), Inventory)
    assert found.devices[0].cache_limit == expected
    thawed = Inventory.model_validate_json(found.model_dump_json(by_alias=True))
    assert thawed.devices[0].cache_limit == expected


@pytest.mark.parametrize(
    ("changes", "id", "says"),
    [
        ({"python": {"tflite": "p"}}, "E-MATRIX-KEY", "'tflite' is not a runtime"),
        ({"transport": {"type": "telnet"}}, "E-MATRIX-TYPE", "'telnet' is unknown"),
        ({"transport": {}}, "E-MATRIX-MISSING", "'type' is missing in devices[0].transport"),
        ({"transport": {"type": "ssh"}}, "E-MATRIX-MISSING", "'host'"),
        (
            {"transport": SSH | {"prot": 22}},
            "E-MATRIX-KEY",
            "did you mean 'port'?",
        ),
        ({"name": "a b"}, "E-MATRIX-NAME", "devices[0].name"),
        ({"tags": ["a", "a"]}, "E-MATRIX-DUPLICATE", "devices[0].tags[1]"),
        ({"cache_limit": "4GB"}, "E-MATRIX-TYPE", "not a size (bytes, or a number with KiB"),
        ({"cache_limit": 0}, "E-MATRIX-TYPE", "devices[0].cache_limit"),
        ({"cache_limit": True}, "E-MATRIX-TYPE", "devices[0].cache_limit"),
        ({"env": {"A=B": "c"}}, "E-MATRIX-TYPE", "not a variable name"),
        ({"env": {"A": 1}}, "E-MATRIX-TYPE", "put it in quotes"),
    ],
)
def test_wrong_devices(tmp_path: Path, changes: dict[str, Any], id: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        yamlfile.load(written(tmp_path, data(**changes)), Inventory)
    assert caught.value.id == id, caught.value
    assert says in str(caught.value)


def test_several_inventories_join_and_refuse_a_name_twice(tmp_path: Path) -> None:
    a = written(tmp_path, data(), "a.yaml")
    b = written(tmp_path, data(name="e"), "b.yaml")
    assert [d.name for d in load_inventories((a, b)).devices] == ["d", "e"]
    c = written(tmp_path, data(), "c.yaml")
    with pytest.raises(InputError) as caught:
        load_inventories((a, c))
    assert caught.value.id == "E-MATRIX-DUPLICATE"
    assert (caught.value.where or "").startswith(f"{c}:")
    assert f"{a}:" in caught.value.what
    with pytest.raises(InputError) as caught:
        load_inventories((tmp_path / "none.yaml",), where="m.yaml:3")
    assert (caught.value.id, caught.value.where) == ("E-INVENTORY-MISSING", "m.yaml:3")


PHONE = {"type": "adb", "serial": "R58M1"}


def two_phones(tmp_path: Path, one: dict[str, Any], two: dict[str, Any]) -> list[Path]:
    """Two inventories of a phone each; ``hub`` is the device's, all else its transport's."""
    paths = []
    for name, more in (("one", one), ("two", two)):
        link = PHONE | {key: value for key, value in more.items() if key != "hub"}
        hub = {"hub": more["hub"]} if "hub" in more else {}
        given = data(name=name, transport=link, **hub)
        paths.append(written(tmp_path, given, f"{name}.yaml"))
    return paths


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({}, {}),
        ({"usb": "usb:1-1"}, {"usb": "usb:1-1"}),
        ({"usb": "usb:1-1"}, {}),
        ({}, {"usb": "usb:1-1"}),
        ({"hub": "h"}, {"hub": "h"}),
        ({"root": "/data/a"}, {"root": "/data/b"}),
    ],
)
def test_two_entries_that_one_phone_answers_to(
    tmp_path: Path, one: dict[str, Any], two: dict[str, Any]
) -> None:
    first, second = two_phones(tmp_path, one, two)
    with pytest.raises(InputError) as caught:
        load_inventories((first, second))
    error = caught.value
    line = next(i for i, text in enumerate(second.read_text().splitlines(), 1) if "serial" in text)
    assert (error.id, error.where) == ("E-MATRIX-DUPLICATE", f"{second}:{line}")
    assert f"one at {first}:" in error.what
    assert "`usb`" in (error.fix or "")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"usb": "usb:1-1"}, {"usb": "usb:1-2"}),
        ({"serial": "R58M2"}, {}),
        ({"server_port": 5037}, {}),
        ({"hub": "h"}, {}),
    ],
)
def test_entries_that_are_told_apart(
    tmp_path: Path, one: dict[str, Any], two: dict[str, Any]
) -> None:
    assert len(load_inventories(tuple(two_phones(tmp_path, one, two))).devices) == 2


def test_an_identity_that_its_class_never_tells(tmp_path: Path) -> None:
    given = data(**{"class": "rpi4"}, identity={"serial": "1", "seriall": "2"})
    path = written(tmp_path, given)
    with pytest.raises(InputError) as caught:
        load_inventories((path,))
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "seriall" in text)
    assert (caught.value.id, caught.value.where) == ("E-MATRIX-KEY", f"{path}:{line}")
    assert "'seriall' is no fact" in caught.value.what
    assert "serial" in (caught.value.fix or "")
