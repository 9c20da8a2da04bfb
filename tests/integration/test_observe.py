"""What the store says of a real finished run, whole and damaged."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import AssayError, InputError
from orchestrator.runs.observations import observations
from orchestrator.runs.run import Run
from orchestrator.store.database import Store
from tests.support.cli import assay
from tests.support.tiny import MODELS, Tiny


@dataclass(frozen=True)
class Farm:
    store: Path
    run: str


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    folder = tmp_path_factory.mktemp("observe")
    tiny = Tiny(folder / "matrix")
    tiny.devices.append(tiny.device("spare"))
    other = {"name": "int8", "path": str(MODELS / "digits_cnn.int8.tflite"), "layout": "same"}
    tiny.matrix["models"][0]["files"].append(other)
    tiny.matrix["runtimes"].append({"name": "lite", "runtime": "litert"})
    done = assay("run", tiny.write(), "--json", store=folder / "store")
    assert done.code in (0, 5), done
    return Farm(folder / "store", done.json["run"]["id"])


def test_every_finished_cell_has_its_outputs_and_its_truth(farm: Farm) -> None:
    with Store.open(farm.store, readonly=True) as store:
        found = list(observations(Run(store, farm.run)))
        document = store.verdict(farm.run)
    assert document is not None
    who = {(o.row.device, o.row.file, o.row.runtime) for o, _ in found}
    assert who == {(d, *f) for d in ("bench", "spare") for f in (("u8s8", "ort"), ("int8", "lite"))}
    for observation, truth in found:
        assert observation.outputs[0].values.shape == (20, 10)
        assert truth.labels is not None
        assert truth.labels.shape == (20,)
        assert truth.fp32 is not None
        assert truth.fp32[0].values.shape == (20, 10)
        assert truth.fp32_error is None
        agree = np.mean(truth.fp32[0].values.argmax(1) == observation.outputs[0].values.argmax(1))
        assert agree > 0.9, "the parent's answers to the same samples in the same order"
    assert len({id(truth) for _, truth in found}) == 1


def test_a_baseline_that_was_never_stored_is_unknown(farm: Farm, tmp_path: Path) -> None:
    shutil.copytree(farm.store, tmp_path / "store")
    with Store.open(tmp_path / "store") as store:
        with store.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM baseline")
        assert {t.fp32 for _, t in observations(Run(store, farm.run))} == {None}


def test_a_damaged_answer_is_named_and_the_rest_still_answers(farm: Farm, tmp_path: Path) -> None:
    shutil.copytree(farm.store, tmp_path / "store")
    told: dict[str, AssayError] = {}
    with Store.open(tmp_path / "store", readonly=True) as store:
        attempts = {a.cell: a for a in store.attempts(farm.run)}
        cells = {c.id: c for c in store.cells(farm.run)}
        spoilt = next(a for a in attempts.values() if cells[a.cell].file == "int8")
        path = store.artefacts.path(spoilt.artefacts["output-0"].sha256)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        found = list(observations(Run(store, farm.run, told=told.__setitem__)))
    assert {e.id for e in told.values()} == {"E-ARTEFACT-CORRUPT"}
    assert {cells[id].file for id in told} == {"int8"}, "both devices answered with these bytes"
    assert {o.cell for o, _ in found} == cells.keys() - told.keys()
    assert {o.row.file for o, _ in found} == {"u8s8"}


def test_damaged_labels_leave_the_answers(farm: Farm, tmp_path: Path) -> None:
    shutil.copytree(farm.store, tmp_path / "store")
    told: dict[str, AssayError] = {}
    with Store.open(tmp_path / "store", readonly=True) as store:
        labels = store.frozen(farm.run)["staging"]["sets"]["digits"]["labels"]
        store.artefacts.path(labels).unlink()
        found = list(observations(Run(store, farm.run, told=told.__setitem__)))
    assert [len(o.outputs) for o, _ in found] == [1] * 4
    assert {t.labels for _, t in found} == {None}
    assert {name: error.id for name, error in told.items()} == {
        "the labels of cnn on digits": "E-ARTEFACT-MISSING"
    }


def test_an_unknown_run_is_named(farm: Farm) -> None:
    with (
        Store.open(farm.store, readonly=True) as store,
        pytest.raises(InputError, match="E-RUN-UNKNOWN"),
    ):
        list(observations(Run(store, "none")))
