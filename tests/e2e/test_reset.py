"""`reset: off` is a setting like every other: what it changes is laid at nobody's door."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import stateful
from tests.support.cli import Done, assay
from tests.support.tiny import MODELS, Tiny

N = 300


@dataclass(frozen=True)
class Bench:
    """Two sound units that were fingerprinted, then ran a model with state with and without it."""

    tiny: Tiny
    store: Path
    first: Any

    def ask(self, *words: str | Path) -> Done:
        return assay(*words, store=self.store)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("reset")
    tiny, store = Tiny(folder / "matrix"), folder / "store"
    tiny.devices = [tiny.device(name, **{"class": "bench"}) for name in ("one", "two")]
    tiny.folder.mkdir(parents=True)
    stateful.svdf(tiny.folder / "memory.tflite")
    x = np.random.default_rng(1).normal(size=(N, stateful.WIDTH)).astype(np.float32)
    np.savez(tiny.folder / "x.npz", x=x, y=x.argmax(axis=1))
    tiny.inputs["path"], tiny.inputs["limit"] = "x.npz", N
    model = tiny.matrix["models"][0]
    model.update(name="memory", fp32=None, files=[{"name": "f32", "path": "memory.tflite"}])
    tiny.matrix["runtimes"] = [
        {"name": "on", "runtime": "litert"},
        {"name": "off", "runtime": "litert", "reset": "off"},
    ]
    tiny.policy["reference"] = [{"device": "one", "runtime": "on"}]
    path = tiny.write()
    taken = assay("fingerprint", "one", "two", "-i", tiny.folder / "inventory.yaml", store=store)
    assert taken.code == 0, taken
    done = assay("run", path, "--json", store=store)
    return Bench(tiny, store, done.json)


def test_explain_names_the_setting_and_nobody(bench: Bench) -> None:
    done = bench.ask("explain", "one/on", "one/off", "--json")
    (why,) = done.json["pairs"]
    assert (why["mechanism"], why["factors"]) == ("state carry-over", ["reset"])
    assert why["blamed"] is None
    assert "out of the farm" not in str(why)
    assert why["changed"] == {"reset": ["on", "off"]}
    (apart,) = bench.ask("explain", "one/off", "two/off", "--json").json["pairs"]
    assert apart["mechanism"] == "identical"
    (both,) = bench.ask("explain", "one/on", "two/off", "--json").json["pairs"]
    assert (both["mechanism"], both["factors"]) == ("state carry-over", ["unit", "reset"])
    assert (both["confidence"], both["blamed"]) == ("possible", None)


def test_history_sees_two_questions_and_no_fault(bench: Bench) -> None:
    (row,) = bench.ask("history", "one", "--json").json["rows"]
    assert (row["questions"], row["asked_again"], row["steps"]) == (2, 0, [])
    assert "fault" not in bench.ask("history", "one").out


def test_agreement_holds_it_for_a_factor_of_its_own(bench: Bench) -> None:
    (study,) = bench.ask("agreement", "--json").json["studies"]
    assert study["within"] == []
    assert {r["reset"] for r in study["raters"]} == {"on", "off"}
    levels = [(found["level"], found["fixed"]["reset"]) for found in study["between"]]
    assert levels == [("units", "off"), ("units", "on")]
    moved = {m["factor"]: m for m in study["matched"]}
    assert moved.keys() == {"unit", "reset"}
    assert (moved["unit"]["identical"], moved["unit"]["pairs"]) == (2, 2)
    assert moved["reset"]["decisions"]["k"] > N / 10
    shown = bench.ask("agreement").out
    assert "reset off" in shown


def test_classes_keep_a_unit_that_did_as_it_was_told(bench: Bench) -> None:
    found = bench.ask("classes", "--json").json
    assert found["tested"]["counterexamples"] == []
    assert found["tested"]["confirmed"] == found["tested"]["pairs"] > 0


def test_by_class_goes_on_for_these_units(bench: Bench) -> None:
    """With this model where it resets, and with every other."""
    path = bench.tiny.write()
    planned = bench.ask("plan", path, "--by-class", "--json")
    assert "off keeps state (reset: off)" in planned.err
    conditions = {c["id"]: c["condition"] for c in planned.json["cells"]}
    assert sum(c.startswith("spot:") for c in conditions.values()) == 1
    assert not any(c.startswith("spot:") and "-off" in id for id, c in conditions.items())

    other = Tiny(bench.tiny.folder / "other")
    other.devices = bench.tiny.devices
    other.file.update(name="int8", path=str(MODELS / "digits_ds.int8.tflite"), layout="same")
    other.matrix["models"][0].update(name="ds", fp32=None)
    other.inputs.update(path=other.inputs["path"].replace("8x8", "32x32"), limit=N)
    other.matrix["runtimes"] = [{"name": "lite", "runtime": "litert"}]
    other.policy["reference"] = []
    told = bench.ask("plan", other.write(), "--by-class", "--json")
    assert [c["condition"].partition(":")[0] for c in told.json["cells"]] == ["clean", "spot"]
    assert told.err == ""
