"""Device classes as data: those that come with the product, and what a user may get wrong."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from device_worker.telemetry.parsers import PARSERS
from device_worker.telemetry.sensors import DEFAULT
from orchestrator.errors import InputError
from orchestrator.matrix import schema, yamlfile
from orchestrator.matrix.device_class import (
    DeviceClass,
    builtin_folder,
    class_names,
    load_class,
    load_classes,
    recognise,
)
from orchestrator.matrix.loader import load_inventories

FILES = sorted(builtin_folder().glob("*.yaml"))
CLASSES = {found.name: found for found in load_classes()}

GENERIC_FACTS = {"machine": "aarch64", "os": "Debian", "hardware": None, "coral_usb": None}


def written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(textwrap.dedent(text))
    return path


def mine(folder: Path, name: str, text: str = "") -> Path:
    return written(folder, name, f"version: 1\nname: {name}\ntitle: Mine\n{textwrap.dedent(text)}")


def refused(name: str, folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_class(name, (folder,))
    return caught.value


def test_every_kind_of_device_has_a_class() -> None:
    assert set(CLASSES) == {
        *("generic", "generic-arm64", "generic-armhf", "x86-64"),
        *("rpi-zero2w", "rpi3", "rpi4", "rpi5"),
        *("jetson-nano", "jetson-xavier", "jetson-orin"),
        *("coral-usb", "coral-pcie", "coral-dev-board", "android-arm64"),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_class_file_passes_both_checkers_and_tells_editors_its_schema(path: Path) -> None:
    document = yamlfile.read(path)
    document.parse(DeviceClass)
    jsonschema.Draft202012Validator(schema.schema("device-class")).validate(document.data)
    first = path.read_text().splitlines()[0]
    target = path.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert target.resolve() == (schema.FOLDER / "device-class.json").resolve()


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_says_what_can_be_read_while_a_model_runs(name: str) -> None:
    found = CLASSES[name]
    said = {source.parser for source in found.telemetry}
    assert said & {"thermal_zones", "thermalservice"}
    assert {"cpu_frequencies", "meminfo"} <= said
    assert {"uname"} <= {source.parser for source in found.facts}
    for mode in found.power.values():
        first = next(iter(PARSERS[mode.read.parser]({"": None, "/x/y": None})))
        assert not first.startswith("battery"), "a mode is its parser's first value"


def test_every_parser_is_selected_by_some_class() -> None:
    """A parser that no class names is never run on a device."""
    used = {s.parser for c in CLASSES.values() for s in (*c.facts, *c.telemetry)}
    used |= {mode.read.parser for c in CLASSES.values() for mode in c.power.values()}
    assert set(PARSERS) - used == {"hwmon", "mains", "vcgencmd_temp", "nvidia_smi"}, (
        "offered to users' classes"
    )


def test_a_worker_without_a_class_looks_at_what_the_generic_class_names() -> None:
    assert [source.source() for source in CLASSES["generic"].telemetry] == list(DEFAULT)


def test_a_class_inherits_what_it_leaves_out_and_nothing_else() -> None:
    pi3, pi4, board = CLASSES["rpi3"], CLASSES["rpi4"], CLASSES["generic-arm64"]
    assert pi3.telemetry == pi4.telemetry != board.telemetry
    assert pi3.power == pi4.power == board.power
    assert (pi3.thermal.max_start_c, pi4.thermal.max_start_c) == (50, 60)
    assert board.thermal == CLASSES["generic"].thermal
    assert CLASSES["jetson-orin"].power.keys() == CLASSES["jetson-xavier"].power.keys()
    assert all(found.like is None for found in CLASSES.values())


def test_every_class_stops_a_run_that_is_too_hot_and_only_products_say_where_one_starts() -> None:
    for name, found in CLASSES.items():
        thermal = found.thermal
        assert thermal.ceiling_c is not None, name
        assert 85 <= thermal.ceiling_c <= 100, name
        # Without a sensor no start is ever shown to be cool: a PC or board that may have none
        # would have no valid timing.
        sensed = name.startswith(("rpi", "jetson", "coral-pcie", "coral-dev", "android"))
        assert (thermal.max_start_c is not None) is sensed, name
        assert (thermal.settle_s is not None) is sensed, "time to cool, where it is waited for"
    assert CLASSES["android-arm64"].thermal.min_battery == 20


def test_a_jetson_tells_its_modes_beside_the_governors_and_in_every_run() -> None:
    governors = CLASSES["generic"].power
    for name in ("jetson-nano", "jetson-xavier", "jetson-orin"):
        found = CLASSES[name]
        assert {m: found.power[m] for m in governors} == governors
        seldom = {s.parser: s.every for s in found.telemetry if s.every}
        assert seldom == {"nvpmodel_id": 60, "jetson_clocks": 600}


@pytest.mark.parametrize(
    ("facts", "machine", "names"),
    [
        (
            {"hardware": "Raspberry Pi 4 Model B Rev 1.4"},
            "aarch64",
            ["rpi4", "generic-arm64", "generic"],
        ),
        ({"hardware": "Raspberry Pi 400 Rev 1.0"}, "armv7l", ["rpi4", "generic-armhf", "generic"]),
        (
            {"hardware": "Raspberry Pi 5 Model B Rev 1.0"},
            "aarch64",
            ["rpi5", "generic-arm64", "generic"],
        ),
        (
            {"hardware": "Raspberry Pi 3 Model B Plus Rev 1.3"},
            "aarch64",
            ["rpi3", "generic-arm64", "generic"],
        ),
        (
            {"hardware": "Raspberry Pi Zero 2 W Rev 1.0", "coral_usb": "1-1:fresh"},
            "aarch64",
            ["rpi-zero2w", "coral-usb", "generic-arm64", "generic"],
        ),
        (
            {"compatible": "nvidia,p3768-0000+p3767-0000 nvidia,p3767-0000 nvidia,tegra234"},
            "aarch64",
            ["jetson-orin", "generic-arm64", "generic"],
        ),
        (
            {"compatible": "nvidia,p3449-0000+p3448-0000 nvidia,p3448-0000 nvidia,tegra210"},
            "aarch64",
            ["jetson-nano", "generic-arm64", "generic"],
        ),
        ({"abi": "arm64-v8a"}, "aarch64", ["android-arm64", "generic-arm64", "generic"]),
        ({"hardware": "Dell Inc. OptiPlex"}, "x86_64", ["x86-64", "generic"]),
        ({"coral_pcie": "0000:01:00.0"}, "x86_64", ["coral-pcie", "x86-64", "generic"]),
        ({}, None, ["generic"]),
    ],
)
def test_devices_are_recognised_by_their_facts(
    facts: dict[str, Any], machine: str | None, names: list[str]
) -> None:
    assert recognise(GENERIC_FACTS | facts, machine, CLASSES.values()) == names


def test_a_users_class_lies_beside_the_inventory_and_comes_first(tmp_path: Path) -> None:
    written(
        tmp_path,
        "inventory",
        """\
        version: 1
        devices:
          - {name: a, class: mine, transport: {type: local}, python: {default: python3}}
          - {name: b, class: rpi4, transport: {type: local}, python: {default: python3}}
          - {name: c, class: other, transport: {type: local}, python: {default: python3}}
        """,
    )
    mine(tmp_path / "classes", "mine", "like: rpi4\nthermal: {max_start_c: 41}\n")
    mine(tmp_path / "classes", "rpi4", "thermal: {max_start_c: 42}\n")
    devices = load_inventories((tmp_path / "inventory.yaml",)).devices
    profiles = [device.profile for device in devices]
    assert [p and p.thermal.max_start_c for p in profiles] == [41, 42, None]
    assert profiles[2] == CLASSES["generic"]
    assert profiles[0] is not None
    assert profiles[0].telemetry == (), "the user's rpi4 has none, and mine is like that one"
    assert "mine" in class_names((tmp_path / "classes",))


def test_a_device_that_names_no_python_has_its_classes(tmp_path: Path) -> None:
    written(
        tmp_path,
        "inventory",
        """\
        version: 1
        devices:
          - {name: phone, class: android-arm64, transport: {type: adb, serial: x}}
          - {name: pi, class: rpi4, transport: {type: ssh, host: x}}
          - {name: like, class: mine, like: android-arm64, transport: {type: adb, serial: y}}
          - {name: other, class: unheard-of, transport: {type: local}}
          - {name: own, class: rpi5, transport: {type: adb, serial: z}, python: {litert: p}}
          - {name: none, class: rpi4, transport: {type: local}, python: {}}
        """,
    )
    devices = load_inventories((tmp_path / "inventory.yaml",)).devices
    assert {device.name: device.python for device in devices} == {
        "phone": {"default": "bundle:aarch64-litert"},
        "pi": {"default": "python3"},
        "like": {"default": "bundle:aarch64-litert"},
        "other": {"default": "python3"},
        "own": {"litert": "p"},
        "none": {},
    }


@pytest.mark.parametrize(
    ("text", "id", "line", "says"),
    [
        ("telemetry:\n  - {parser: meminfo, path: /a}\n  - {parser: nope, path: /b}\n",
         "E-CLASS-PARSER", 6, "there is no parser 'nope' (one of apex, "),
        ("facts:\n  - parser: uname\n    command: [uname]\n    stream: true\n",
         "E-MATRIX-TYPE", 7, "a fact cannot be a stream"),
        ("telemetry:\n  - {parser: meminfo}\n", "E-MATRIX-TYPE", 5, "either path or command"),
        ("telemetry:\n  - {parser: meminfo, path: [/a, b]}\n", "E-MATRIX-TYPE", 5, "not absolute"),
        ('telemetry:\n  - {parser: uname, command: ["a\\nb"]}\n', "E-MATRIX-TYPE", 5, "one line"),
        ("telemetry:\n  - {parser: uname, command: [a], timeout: 0}\n", "E-MATRIX-TYPE", 5, "0"),
        ("recognise:\n  - {fact: hardware, is: []}\n", "E-MATRIX-TYPE", 5, "is"),
        ("thermal: {max_start: 60}\n", "E-MATRIX-KEY", 4, "max_start_c"),
        ("thermal: {max_start_c: 81, ceiling_c: 80}\n", "E-MATRIX-TYPE", 4, "stopped at 80"),
        ("thermal: {min_battery: 101}\n", "E-MATRIX-TYPE", 4, "min_battery"),
        ("like: nothing-here\n", "E-CLASS-UNKNOWN", 4, "there is no device class 'nothing-here'"),
        ("like: wrong\n", "E-CLASS-UNKNOWN", 4, "alike in a circle: wrong → wrong"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_class_is_told_with_its_line(
    tmp_path: Path, text: str, id: str, line: int, says: str
) -> None:
    path = mine(tmp_path, "wrong", text)
    error = refused("wrong", tmp_path)
    assert error.id == id, error
    assert error.where == f"{path}:{line}"
    assert says in str(error)
    assert "\n" not in str(error)


def test_a_circle_of_several_is_told_where_it_closes(tmp_path: Path) -> None:
    mine(tmp_path, "a", "like: b\n")
    closing = mine(tmp_path, "b", "like: a\n")
    error = refused("a", tmp_path)
    assert (error.id, error.where) == ("E-CLASS-UNKNOWN", f"{closing}:4")
    assert "a → b → a" in str(error)


def test_a_file_is_named_as_its_class(tmp_path: Path) -> None:
    path = mine(tmp_path, "mine")
    path.rename(tmp_path / "yours.yaml")
    error = refused("yours", tmp_path)
    assert (error.id, error.where) == ("E-CLASS-NAME", f"{tmp_path / 'yours.yaml'}:2")


def test_an_unknown_class_is_none() -> None:
    assert load_class("no-such-class") is None


GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "device-classes.md").read_text()


def test_the_guides_example_is_a_class_and_its_tables_leave_nothing_out(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)
    written(tmp_path, "doorbell", text)
    found = load_class("doorbell", (tmp_path,))
    assert found is not None
    assert recognise({"hardware": "Acme Doorbell rev C2"}, "aarch64", [found]) == ["doorbell"]
    assert found.power.keys() == {"fast"}
    rows = "\n".join(line for line in GUIDE.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`([^`]+)`", rows))
    assert set(PARSERS) <= named
    assert set(CLASSES) <= named
    assert set(DeviceClass.model_fields) - {"version", "name", "title", "notes"} <= named
