"""What a run is made of: staging, its frozen form, orders from it, records from answers."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_worker import wire
from orchestrator.coordinator.jobs import blobs_of, order_for, record
from orchestrator.errors import InputError
from orchestrator.matrix.device_class import DeviceClass
from orchestrator.matrix.model import Gate
from orchestrator.queue.states import AttemptState, CellState
from orchestrator.results.finished import Failure, Finished
from orchestrator.run import Planned, plan
from orchestrator.runs.snapshot import FrozenRun, load_run
from orchestrator.runs.staged import Staging
from orchestrator.staging import stage as module
from orchestrator.staging.stage import check_unchanged, find_lineage, here, stage
from orchestrator.store.artefacts import Artefacts
from orchestrator.store.records import CellInfo, Claim
from tests.support.tiny import MODELS, Tiny


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    made = Tiny(tmp_path / "matrix")
    made.folder.mkdir()
    shutil.copy(MODELS / "digits_cnn.u8s8.onnx", made.folder / "mine.onnx")
    made.file["path"] = "mine.onnx"
    return made


@pytest.fixture
def artefacts(tmp_path: Path) -> Artefacts:
    return Artefacts(tmp_path / "artefacts")


def staged(tiny: Tiny, artefacts: Artefacts) -> tuple[Planned, Staging]:
    planned = plan(tiny.write(), [])
    return planned, stage(planned.matrix, planned.cells, artefacts, here, planned.where)


# Staging -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "says", "entry"),
    [
        ({"output": 1}, "reads output 1, the model has 1", "output: 1"),
        ({"type": "anomaly", "score": "output", "threshold": 0.5}, "needs one value", "task:"),
        ({"type": "anomaly", "score": "mse_to_input", "threshold": 0.5}, "with input", "task:"),
        ({"type": "anomaly", "score": "max_output", "threshold": 0.5}, "of 0..1", "labels:"),
        ({"type": "regression", "tolerance": 0.1}, "labels have shape (20,)", "labels:"),
    ],
)
def test_a_task_that_cannot_be_judged_is_refused_where_it_stands(
    tiny: Tiny, artefacts: Artefacts, task: dict[str, Any], says: str, entry: str
) -> None:
    model = tiny.matrix["models"][0]
    model["task"] = ({} if "type" in task else model["task"]) | task
    with pytest.raises(InputError) as caught:
        staged(tiny, artefacts)
    assert caught.value.id == "E-TASK-MISMATCH"
    assert says in caught.value.what
    assert caught.value.what.startswith("cnn.u8s8 on digits: ")
    file, _, line = str(caught.value.where).rpartition(":")
    assert entry in Path(file).read_text().splitlines()[int(line) - 1]


def test_without_labels_any_task_of_the_right_form_will_do(
    tiny: Tiny, artefacts: Artefacts
) -> None:
    tiny.matrix["models"][0]["task"] = {"type": "regression", "tolerance": 0.1}
    del tiny.inputs["labels"]
    assert staged(tiny, artefacts)[1].sets["digits"].labels is None


def test_everything_a_cell_needs_is_an_artefact(tiny: Tiny, artefacts: Artefacts) -> None:
    _, found = staged(tiny, artefacts)
    assert set(found.models) == {"cnn", "cnn.u8s8"}
    assert set(found.tensors) == {"cnn/digits", "cnn.u8s8/digits"}
    model = found.models["cnn.u8s8"]
    assert artefacts.read(model.sha256) == (tiny.folder / "mine.onnx").read_bytes()
    assert (model.format, model.size) == ("onnx", (tiny.folder / "mine.onnx").stat().st_size)
    tensor = found.tensors["cnn.u8s8/digits"]
    array = np.load(io.BytesIO(artefacts.read(tensor.sha256)))
    assert (str(array.dtype), array.shape) == (tensor.dtype, tensor.shape)
    kept = found.sets["digits"]
    assert kept.labels is not None
    assert len(np.load(io.BytesIO(artefacts.read(kept.labels)))) == kept.n == 20


def test_a_file_is_staged_with_its_lineage(tiny: Tiny, artefacts: Artefacts) -> None:
    found = staged(tiny, artefacts)[1].models
    lineage = found["cnn.u8s8"].lineage
    assert lineage is not None
    assert (lineage.verdict, lineage.within) == ("nearest-step", lineage.weights)
    assert found["cnn"].lineage is None


def test_a_compiled_file_has_the_lineage_of_its_source(tiny: Tiny, artefacts: Artefacts) -> None:
    model = tiny.matrix["models"][0]
    compiled = MODELS.parents[1] / "standins" / "digits_cnn.int8_edgetpu.tflite"
    model["fp32"] = str(MODELS / "digits_cnn.fp32.tflite")
    model["files"] = [
        {"name": "int8", "path": str(MODELS / "digits_cnn.int8.tflite")},
        {"name": "tpu", "path": str(compiled), "compiled_from": "int8"},
        {"name": "sealed", "path": str(compiled)},
    ]
    tiny.matrix["runtimes"] = [{"name": "litert", "runtime": "litert"}]
    models = staged(tiny, artefacts)[1].models
    verdicts = {key: m.lineage.verdict for key, m in models.items() if m.lineage}
    assert verdicts == {
        "cnn.int8": "nearest-step",
        "cnn.tpu": "nearest-step",
        "cnn.sealed": "inconclusive",
    }


def test_a_lineage_that_cannot_be_told_stops_nothing(tmp_path: Path) -> None:
    told = find_lineage(MODELS / "digits_cnn.u8s8.onnx", tmp_path / "gone.onnx")
    assert told.verdict == "inconclusive"
    assert "gone.onnx: there is no such file" in told.reason


def test_staging_twice_gives_the_same(tiny: Tiny, artefacts: Artefacts) -> None:
    assert staged(tiny, artefacts)[1] == staged(tiny, artefacts)[1]


def test_a_model_without_a_parent(tiny: Tiny, artefacts: Artefacts) -> None:
    tiny.matrix["models"][0]["fp32"] = None
    assert set(staged(tiny, artefacts)[1].models) == {"cnn.u8s8"}


def test_a_model_that_changes_while_it_is_read(
    tiny: Tiny, artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = module.inspect_model

    def late(path: Path) -> module.Inspected:
        found = honest(path)
        if path.name == "mine.onnx":
            path.write_bytes((MODELS / "digits_cnn.u8u8.onnx").read_bytes())
        return found

    monkeypatch.setattr(module, "inspect_model", late)
    with pytest.raises(InputError, match="changed while it was being read"):
        staged(tiny, artefacts)


def test_what_was_recorded_must_be_what_was_staged(tiny: Tiny, artefacts: Artefacts) -> None:
    planned, found = staged(tiny, artefacts)
    files = FrozenRun(planned.matrix, planned.inventory, None, found, {}).dump()["files"]
    check_unchanged(planned.matrix, found, files)
    wrong = {**files, str(tiny.folder / "mine.onnx"): "0" * 64}
    with pytest.raises(InputError, match="E-FILE-CHANGED"):
        check_unchanged(planned.matrix, found, wrong)


def test_here_hands_errors_on() -> None:
    assert here(len, "abc").result() == 3
    with pytest.raises(ZeroDivisionError):
        here(divmod, 1, 0).result()


# The frozen run ------------------------------------------------------------------------------


@pytest.fixture
def frozen(tiny: Tiny, artefacts: Artefacts) -> FrozenRun:
    tiny.devices[0] |= {"env": {"KEY": "value"}, "cache_limit": "2MiB"}
    tiny.matrix["conditions"] = ["clean", "repeat:30"]
    tiny.matrix |= {"gate": {"max_start_c": 55, "settle_s": 3}, "telemetry_hz": 4}
    planned, found = staged(tiny, artefacts)
    slots = {cell.slot: cell.candidates for cell in planned.cells}
    return FrozenRun(planned.matrix, planned.inventory, planned.policy, found, slots)


def test_it_comes_back_as_it_went_through_json(frozen: FrozenRun) -> None:
    assert load_run(json.loads(json.dumps(frozen.dump()))) == frozen
    assert frozen.devices == ("bench",)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("staging", None),
        ("staging", {"models": {}}),
        ("slots", None),
        ("slots", ["bench"]),
        ("matrix", {}),
        ("version", 99),
        ("policy", {"name": 3}),
    ],
)
def test_a_damaged_one_is_refused(frozen: FrozenRun, part: str, value: Any) -> None:
    data = frozen.dump()
    with pytest.raises(InputError) as refused:
        load_run({**data, part: value})
    assert refused.value.id == "E-FROZEN"
    if part != "version":
        with pytest.raises(InputError, match="E-FROZEN"):
            load_run({k: v for k, v in data.items() if k != part})


def test_the_class_of_a_unit_or_of_its_slot(frozen: FrozenRun) -> None:
    assert frozen.class_of("bench", "bench") == "class-bench"
    assert frozen.class_of("rpi4#2", "rpi4#2") == "rpi4"


# Orders and records --------------------------------------------------------------------------


def claim(condition: str) -> Claim:
    cell = CellInfo(
        run="r", id="c", position=0, slot="bench", unit="bench", model="cnn", file="u8s8",
        inputs="digits", condition=condition, runtime="ort", env_key="onnxruntime",
        state=CellState.RUNNING, outcome=None, attempt=None, failures=0,
    )  # fmt: skip
    return Claim("attempt-1", 1, "bench", 7, cell)


def test_an_order_says_all_that_the_hub_must_know(frozen: FrozenRun, artefacts: Artefacts) -> None:
    order = order_for(claim("clean"), frozen, artefacts, "farm-x")
    assert (order.target.device, order.target.device_class) == ("bench", "class-bench")
    assert (order.target.owner, order.target.token) == ("farm-x", 7)
    assert order.target.cache_limit == 2 << 20
    assert (order.env, order.max_start_c, order.settle_s) == ({"KEY": "value"}, 55, 3)
    assert (order.limits.cell, order.limits.silence) == (1200, 180)
    job = order.job
    assert (job.attempt, job.samples, job.repeat, job.telemetry_hz) == ("attempt-1", 20, 1, 4)
    assert job.runtime == wire.RuntimeSpec("onnxruntime")
    assert set(order.blobs) == {b.sha256 for b in blobs_of(job)}
    for sha, path in order.blobs.items():
        assert Path(path).read_bytes() == artefacts.read(sha)


def test_a_repeat_runs_few_samples_often(frozen: FrozenRun, artefacts: Artefacts) -> None:
    job = order_for(claim("repeat:30"), frozen, artefacts, "farm-x").job
    assert (job.samples, job.repeat) == (8, 30)


def with_class(
    frozen: FrozenRun, gate: dict[str, Any] | None = None, power: tuple[str, ...] = ()
) -> FrozenRun:
    """The run with a device class that knows a limit or two, and a power mode."""
    profile = DeviceClass.model_validate(
        {
            "version": 1,
            "name": "warm",
            "title": "t",
            "thermal": {
                "max_start_c": 50.0,
                "ceiling_c": 80.0,
                "min_battery": 25.0,
                "settle_s": 9.0,
            },
            "power": {
                "save": {
                    "read": {"parser": "meminfo", "path": "/mode"},
                    "expect": "low",
                    "apply": (("write", "/mode", "low"),),
                    "restore": (("mode", "{before}"),),
                }
            },
        }
    )
    device = frozen.inventory.devices[0].model_copy(update={"profile": profile, "power": power})
    matrix = frozen.matrix.model_copy(update={"gate": Gate.model_validate(gate or {})})
    inventory = frozen.inventory.model_copy(update={"devices": (device,)})
    return replace(frozen, matrix=matrix, inventory=inventory)


def test_limits_come_from_the_matrix_else_from_the_class(
    frozen: FrozenRun, artefacts: Artefacts
) -> None:
    order = order_for(claim("clean"), with_class(frozen), artefacts, "farm-x")
    assert (order.max_start_c, order.job.ceiling_c) == (50, 80)
    assert (order.min_battery, order.settle_s) == (25, 9)
    gate = {"max_start_c": 45.0, "ceiling_c": 70.0, "min_battery": 0.0, "settle_s": 0.0}
    order = order_for(claim("clean"), with_class(frozen, gate), artefacts, "farm-x")
    assert (order.max_start_c, order.job.ceiling_c) == (45, 70)
    assert (order.min_battery, order.settle_s) == (0, 0), "none is a limit as well"


def test_a_soak_runs_few_samples_and_gets_the_time_for_it(
    frozen: FrozenRun, artefacts: Artefacts
) -> None:
    gate = {"heat_s": 200.0}
    order = order_for(claim("soak:75C/30s"), with_class(frozen, gate), artefacts, "farm-x")
    assert order.job.soak == wire.Soak(75.0, 30.0, 200.0)
    assert (order.job.samples, order.job.repeat, order.job.power) == (8, 1, None)
    assert order.limits.cell == 1200 + 200 + 30
    assert order.unavailable is None


def test_a_class_that_may_not_get_so_hot_does_not_cover_the_soak(
    frozen: FrozenRun, artefacts: Artefacts
) -> None:
    order = order_for(claim("soak:80C"), with_class(frozen), artefacts, "farm-x")
    assert order.unavailable is not None
    assert order.unavailable_id == "E-SOAK-CEILING"


@pytest.mark.parametrize(("power", "sets"), [((), False), (("other",), False), (("s*",), True)])
def test_a_power_mode_is_set_only_where_the_inventory_allows_it(
    frozen: FrozenRun, artefacts: Artefacts, power: tuple[str, ...], sets: bool
) -> None:
    order = order_for(claim("power:save"), with_class(frozen, power=power), artefacts, "farm-x")
    mode = order.job.power
    assert mode is not None
    assert (mode.name, mode.expect, order.job.samples) == ("save", "low", 20)
    assert mode.apply == ([["write", "/mode", "low"]] if sets else [])
    assert mode.restore == ([["mode", "{before}"]] if sets else [])


def test_a_power_mode_that_the_class_does_not_know(frozen: FrozenRun, artefacts: Artefacts) -> None:
    for run in (frozen, with_class(frozen)):
        order = order_for(claim("power:nosuch"), run, artefacts, "farm-x")
        assert (order.unavailable_id, order.job.power) == ("E-POWER-MODE", None)
        assert "'nosuch'" in (order.unavailable or "")


def answer(**changes: Any) -> Finished:
    result = {"telemetry": {"timing_valid": True}, "environment": {"machine": "x"}, "other": 1}
    files = {"output-0": b"codes", "latency_ns": b"ns"}
    plain: dict[str, Any] = {"result": result, "files": files, "bytes_pushed": 5} | changes
    return Finished("attempt-1", "bench", 7, 10.0, 12.0, **plain)


def test_a_result_becomes_a_record_and_artefacts(artefacts: Artefacts) -> None:
    made = record(answer(), artefacts)
    assert (made.state, made.codes_valid, made.timing_valid) == (AttemptState.OK, True, True)
    assert (made.started, made.ended, made.environment) == (10.0, 12.0, {"machine": "x"})
    assert made.result is not None
    assert made.result["bytes_pushed"] == 5
    assert "environment" not in made.result
    assert {r: artefacts.read(b.sha256) for r, b in made.artefacts.items()} == {
        "output-0": b"codes",
        "latency_ns": b"ns",
    }
    assert record(answer(), artefacts).columns() == made.columns(), "redelivered, it is the same"


def test_heat_spoils_the_timing_alone(artefacts: Artefacts) -> None:
    hot = record(answer(timing_notes=("started at 80 °C",)), artefacts)
    throttled = dict(answer().result or {}, telemetry={"timing_valid": False})
    for made in (hot, record(answer(result=throttled), artefacts)):
        assert (made.codes_valid, made.timing_valid) == (True, False)


@pytest.mark.parametrize("outcome", ["model_error", "infra_error", "timeout", "not_available"])
def test_a_failure_becomes_a_record_without_results(artefacts: Artefacts, outcome: str) -> None:
    failure = Failure(outcome, "E-X", "what [E-X]", outcome == "infra_error")
    made = record(answer(failure=failure, result=None, files={}), artefacts)
    assert (made.state, made.error_id, made.error) == (AttemptState(outcome), "E-X", "what [E-X]")
    assert made.retryable is (outcome == "infra_error")
    assert (made.codes_valid, made.timing_valid, made.result, made.artefacts) == (
        None,
        None,
        None,
        {},
    )
