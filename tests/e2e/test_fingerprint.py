"""`assay fingerprint` and `assay classes` on this machine, as a user types them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.coordinator.reservations import Reservations
from orchestrator.matrix.loader import load_inventories
from orchestrator.store.database import Store
from tests.support.cli import Done, assay
from tests.support.tiny import Tiny


@dataclass(frozen=True)
class Desk:
    """Two units of this machine and one that lacks everything; what asking them said."""

    store: Path
    inventory: Path
    done: Done

    def run(self, *arguments: str) -> Done:
        return assay(*arguments, store=self.store)

    def ask(self, *arguments: str) -> Done:
        return self.run("fingerprint", *arguments, "-i", str(self.inventory))


def unit(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "name": name,
        "class": "desk",
        "transport": {"type": "local", "root": str(folder / name)},
        "python": {"onnxruntime": sys.executable, "litert": sys.executable},
    }
    return plain | changes


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    devices = [
        unit(folder, "one"),
        unit(folder, "two"),
        unit(folder, "bare", python={"tflite-runtime": sys.executable}),
        unit(folder, "away", transport={"type": "local", "root": str(folder / "a")}, hub="lab"),
    ]
    inventory = folder / "inventory.yaml"
    inventory.write_text(yaml.safe_dump({"version": 1, "devices": devices}))
    wanted = ("--runtime", "litert/default", "--runtime", "onnxruntime")
    store = folder / "store"
    done = assay("fingerprint", "one", "two", *wanted, "-i", str(inventory), store=store)
    return Desk(store, inventory, done)


def test_equal_units_are_one_class(desk: Desk) -> None:
    assert desk.done.code == 0, desk.done.err
    lines = desk.done.out.splitlines()
    taken = [line.split()[:2] for line in lines if line.startswith(("one ", "two "))]
    assert sorted(taken) == sorted(
        [name, configuration]
        for name in ("one", "two")
        for configuration in ("litert/default", "onnxruntime")
    )
    classes = [line.partition(": ")[2] for line in lines if line.startswith("class ")]
    assert sorted(classes) == [
        "one:litert/default, two:litert/default",
        "one:onnxruntime, two:onnxruntime",
    ]
    assert not [line for line in lines if "otherwise as" in line]


def test_classes_reads_what_was_stored(desk: Desk) -> None:
    found = desk.run("classes", "--json").json
    assert found["schema"] == "assay.classes/1"
    members = [[m["device"] for m in group["members"]] for group in found["classes"]]
    assert members == [["one", "two"], ["one", "two"]]
    assert found["splits"] == []
    assert "class " in desk.run("classes").out
    some = desk.run("classes", "--family", "CONV_2D int8*", "--json").json
    assert [len(group["members"]) for group in some["classes"]] == [2]


def test_equal_fingerprints_are_held_against_the_answers_of_every_run(desk: Desk) -> None:
    untested = desk.run("classes", "--json").json["tested"]
    assert (untested["pairs"], untested["exceptions_at_most"]) == (0, None)
    assert desk.run("classes").out.splitlines()[-1].endswith("answered the same")
    tiny = Tiny(desk.store.parent / "matrix")
    tiny.devices = yaml.safe_load(desk.inventory.read_text())["devices"][:2]
    tiny.matrix["devices"] = [{"name": "one"}, {"name": "two"}]
    tiny.policy["reference"] = [{"device": "one", "runtime": "ort"}]
    for _ in range(2):  # of one unit and one question the newest answer counts
        assert desk.run("run", str(tiny.write())).code == 0
    found = desk.run("classes", "--json").json["tested"]
    assert (found["pairs"], found["confirmed"], found["counterexamples"]) == (1, 1, [])
    assert found["exceptions_at_most"] == pytest.approx(0.95)
    (line,) = [x for x in desk.run("classes").out.splitlines() if "equal codes" in x]
    assert line == (
        "equal fingerprint, equal codes: 1 of 1 pairs of answers; "
        "exceptions at most 95 % (one-sided 95 %)"
    )


def test_a_diff_says_what_two_kernel_sets_do_differently(desk: Desk) -> None:
    asked = desk.ask("one", "--runtime", "litert/reference", "--json")
    assert asked.code == 0, asked.err
    assert asked.json["schema"] == "assay.fingerprints/1"
    (taken,) = asked.json["taken"]
    assert taken["fingerprint"]["families"]["CONV_2D int8 per-channel"]["mode"] == "double"
    assert (taken["device"], taken["configuration"]) == ("one", "litert/reference")
    told = taken["fingerprint"]["taken_on"]
    assert told["runtime"]["name"] == "litert"
    assert told["machine"]
    assert told["isa_flags"]
    done = desk.run("fingerprint", "--diff", "one:litert/reference", "two:litert/default", "--json")
    (line,) = done.json["differences"]
    assert "half-even" in line["words"]
    assert line["words"].endswith("otherwise as two:litert/default")
    same = desk.run("fingerprint", "--diff", "one", "two")
    assert same.out.splitlines() == [
        "one:litert/default: as two:litert/default",
        "one:onnxruntime: as two:onnxruntime",
    ]


def test_a_device_that_has_no_runtime_is_not_covered(desk: Desk) -> None:
    done = desk.ask("bare", "--json")
    assert done.code == 5
    errors = {t["configuration"]: t["error"]["id"] for t in done.json["taken"]}
    assert set(errors.values()) == {"E-RUNTIME-MISSING"}
    assert len(errors) == 7
    assert done.json["classes"] == []


def test_one_in_use_is_an_infrastructure_error_that_names_the_holder(desk: Desk) -> None:
    device = load_inventories((desk.inventory,)).device("two")
    with Reservations(desk.store) as reservations, reservations.of(device):
        done = desk.ask("two", "--runtime", "onnxruntime")
    assert done.code == 3
    assert "E-DEVICE-IN-USE" in done.out
    with Store.open(desk.store, readonly=True) as store:
        assert store.leases() == []


def test_what_is_asked_wrongly_is_one_line(desk: Desk) -> None:
    desk.ask("nobody").refused(2, "E-DEVICE-NAME", "known: away, bare, one, two")
    desk.ask("one", "--runtime", "tpu").refused(2, "E-USAGE", "litert/reference")
    desk.ask().refused(2, "E-USAGE", "--diff")
    desk.run("fingerprint", "--diff", "one", "nobody").refused(2, "E-FINGERPRINT-NONE")
    desk.run("classes", "--family", "Conv3D*").refused(2, "E-FINGERPRINT-NONE", "QLinearConv")
    desk.run("fingerprint", "--diff", "one:onnxruntime", "two:onnxruntime", "one").refused(
        2, "E-USAGE"
    )


def test_a_device_of_another_hub_is_not_looked_for(desk: Desk) -> None:
    done = desk.ask("away")
    assert done.code == 3
    assert "E-DEVICE-HUB" in done.out
