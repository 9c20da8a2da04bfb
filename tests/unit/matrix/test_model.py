from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.errors import InputError
from orchestrator.matrix import yamlfile
from orchestrator.matrix.model import Matrix
from orchestrator.variance import tasks
from tests.unit.matrix.build import MATRIX, edited, matrix, written


def test_defaults_and_shorthands(tmp_path: Path) -> None:
    m = yamlfile.load(written(tmp_path, MATRIX), Matrix)
    assert m.inventory == (tmp_path / "inventory.yaml",)
    assert m.models[0].fp32 is not None
    assert m.models[0].fp32.path == tmp_path / "net.fp32.onnx"
    assert m.models[0].inputs == ("set",)
    assert (m.timeouts.queue, m.timeouts.cell, m.timeouts.silence) == (21600.0, 1200.0, 180.0)
    assert (m.retry.infra, m.repeat_samples, m.telemetry_hz) == (2, 8, 2.0)
    assert m.runtimes[0].devices == ("*",)
    assert m.policy is None


def test_a_parent_may_have_a_twin_in_the_other_format() -> None:
    (model,) = matrix(("models.0.fp32_twin", "net.fp32.tflite")).models
    assert [p.format for p in model.parents.values()] == ["onnx", "tflite"]
    m = matrix(("models.0.fp32_twin", {"path": "/t/net.fp32.tflite", "layout": "flat"}))
    assert Path("/t/net.fp32.tflite") in m.paths()
    alone = ("models.0.fp32", None), ("models.0.fp32_twin", "net.fp32.tflite")
    with pytest.raises(ValidationError, match="in the other format"):
        matrix(*alone)


def test_paths_are_relative_to_the_file_and_home_expands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    (tmp_path / "sub").mkdir()
    data = edited(
        ("policy", "../p.yaml"), ("inventory", ["~/i.yaml", "/abs/i.yaml"]), ("models.0.fp32", None)
    )
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "sub", data)
    m = yamlfile.load(Path("sub/m.yaml"), Matrix)
    assert m.policy == tmp_path / "p.yaml"
    assert m.inventory == (Path("/home/someone/i.yaml"), Path("/abs/i.yaml"))
    assert m.models[0].fp32 is None


@pytest.mark.parametrize(
    ("value", "seconds"), [(90, 90.0), (1.5, 1.5), ("90s", 90.0), ("3m", 180.0), ("6h", 21600.0)]
)
def test_durations(value: Any, seconds: float) -> None:
    assert matrix(("timeouts", {"cell": value})).timeouts.cell == seconds


@pytest.mark.parametrize(
    ("edit", "id", "says"),
    [
        (("name", "a b"), "E-MATRIX-NAME", "'a b' is not a name"),
        (("name", "-a"), "E-MATRIX-NAME", "is not a name"),
        (("name", "a\n"), "E-MATRIX-NAME", "is not a name"),
        (("name", "a" * 64), "E-MATRIX-NAME", "is not a name"),
        (("version", 2), "E-MATRIX-TYPE", "version"),
        (("models", []), "E-MATRIX-TYPE", "models"),
        (("models", MATRIX["models"] * 2), "E-MATRIX-DUPLICATE", "'net' is already the name"),
        (("runtimes", MATRIX["runtimes"] * 2), "E-MATRIX-DUPLICATE", "'ort'"),
        (("inputs", MATRIX["inputs"] * 2), "E-MATRIX-DUPLICATE", "'set'"),
        (("conditions", ["clean", "clean"]), "E-MATRIX-DUPLICATE", "conditions[1]"),
        (("conditions", ["noise:3"]), "E-MATRIX-CONDITION", "'noise:3' is not a known"),
        (("conditions", ["repeat:1"]), "E-MATRIX-CONDITION", "repeat:1"),
        (("conditions", ["repeat:100001"]), "E-MATRIX-CONDITION", "repeat:100001"),
        (("conditions", ["soak:29C"]), "E-MATRIX-CONDITION", "soak:29C"),
        (("conditions", ["soak:111C"]), "E-MATRIX-CONDITION", "soak:111C"),
        (("conditions", ["soak:75"]), "E-MATRIX-CONDITION", "soak:75"),
        (("conditions", ["soak:75C/0s"]), "E-MATRIX-CONDITION", "soak:75C/0s"),
        (("conditions", ["soak:75F"]), "E-MATRIX-CONDITION", "soak:75F"),
        (("conditions", ["power:"]), "E-MATRIX-CONDITION", "power:"),
        (("conditions", ["power:a b"]), "E-MATRIX-CONDITION", "power:a b"),
        (("conditions", ["order:"]), "E-MATRIX-CONDITION", "order:"),
        (("conditions", ["order:-1"]), "E-MATRIX-CONDITION", "order:-1"),
        (("conditions", ["order:007"]), "E-MATRIX-CONDITION", "order:007"),
        (("conditions", ["order:2147483648"]), "E-MATRIX-CONDITION", "order:2147483648"),
        (("runtimes.0.reset", "off"), "E-MATRIX-RUNTIME", "'reset' has no meaning"),
        (("conditions", []), "E-MATRIX-TYPE", "conditions"),
        (("models.0.inputs", "sett"), "E-MATRIX-REFERENCE", "no input set 'sett'"),
        (("models.0.files.0.path", "a.pb"), "E-MODEL-FORMAT", "models[0].files[0].path"),
        (("models.0.fp32", "a.h5"), "E-MODEL-FORMAT", "models[0].fp32"),
        (("models.0.fp32_twin", "a.onnx"), "E-MATRIX-TYPE", "in the other format"),
        (("models.0.files.0.path", ""), "E-MATRIX-TYPE", "not a path"),
        (("models.0.files.0.path", 5), "E-MATRIX-TYPE", "not a path"),
        (("models.0.files.0.sha256", "ab"), "E-MATRIX-TYPE", "sha256"),
        (("models.0.files.0.layout", "nhwc"), "E-MATRIX-TYPE", "layout"),
        (("models.0.task", {"type": "regression"}), "E-MATRIX-MISSING", "'tolerance'"),
        (("models.0.task", {"type": "regression", "tolerance": 0}), "E-MATRIX-TYPE", "tolerance"),
        (("devices.0", {}), "E-MATRIX-DEVICE", "exactly one of"),
        (("devices.0", {"name": "a", "tag": "b"}), "E-MATRIX-DEVICE", "exactly one of"),
        (("devices.0", {"name": "a", "count": 0}), "E-MATRIX-TYPE", "count"),
        (("runtimes.0.kernels", "reference"), "E-MATRIX-RUNTIME", "no meaning for onnxruntime"),
        (("runtimes.1.provider", "CUDA"), "E-MATRIX-RUNTIME", "no meaning for litert"),
        (("runtimes.1.session", {"a": "b"}), "E-MATRIX-RUNTIME", "runtimes[1].session"),
        (("runtimes.0.session", {"a": 0}), "E-MATRIX-TYPE", "put it in quotes"),
        (("runtimes.0.threads", 0), "E-MATRIX-TYPE", "threads"),
        (("timeouts", {"cell": "3 weeks"}), "E-MATRIX-TYPE", "not a duration"),
        (("timeouts", {"cell": 0}), "E-MATRIX-TYPE", "cell"),
        (("gate", {"min_battery": 120}), "E-MATRIX-TYPE", "min_battery"),
        (("gate", {"ceiling_c": 151}), "E-MATRIX-TYPE", "ceiling_c"),
        (("gate", {"heat_s": 0}), "E-MATRIX-TYPE", "heat_s"),
        (("gate", {"max_start_c": 81, "ceiling_c": 80}), "E-MATRIX-TYPE", "stopped at 80"),
        (
            ("inputs.0", {"name": "set", "type": "images", "path": "d", "size": [8]}),
            "E-MATRIX-TYPE",
            "size",
        ),
        (
            (
                "inputs.0",
                {
                    "name": "set",
                    "type": "images",
                    "path": "d",
                    "size": [8, 8],
                    "labels": "l.csv",
                    "class_folders": True,
                },
            ),
            "E-MATRIX-TYPE",
            "not both",
        ),
    ],
)
def test_wrong_values_are_one_clear_line(
    tmp_path: Path, edit: tuple[str, Any], id: str, says: str
) -> None:
    path = written(tmp_path, edited(edit))
    with pytest.raises(InputError) as caught:
        yamlfile.load(path, Matrix)
    assert caught.value.id == id, caught.value
    assert says in str(caught.value)
    assert (caught.value.where or "").startswith(f"{path}:")
    assert "\n" not in str(caught.value)


def test_a_duplicate_is_shown_where_the_second_stands(tmp_path: Path) -> None:
    text = (
        "version: 1\nruntimes:\n  - {name: a, runtime: litert}\n  - runtime: litert\n    name: a\n"
    )
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        yamlfile.load(path, Matrix)
    assert (caught.value.id, caught.value.where) == ("E-MATRIX-DUPLICATE", f"{path}:5")


def test_user_text_with_braces_reaches_the_message_unharmed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'\{x\}%s' is not a name"):
        yamlfile.load(written(tmp_path, edited(("name", "{x}%s"))), Matrix)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "classification", "labels": ["no", "yes"]}, tasks.Classification(0)),
        ({"type": "regression", "tolerance": 0.1, "output": 2}, tasks.Regression(0.1, 2)),
        (
            {"type": "anomaly", "score": "mse_to_input", "threshold": 3},
            tasks.Anomaly(3.0, "mse_to_input"),
        ),
    ],
)
def test_a_task_gives_the_arguments_of_its_counterpart(
    given: dict[str, Any], expected: tasks.Task
) -> None:
    assert type(expected)(**matrix(("models.0.task", given)).models[0].task.settings()) == expected


def test_a_soak_above_the_ceiling_would_only_be_stopped() -> None:
    ceiling = ("gate", {"ceiling_c": 75})
    assert matrix(ceiling, ("conditions", ["soak:74.5C", "clean"])).conditions[0] == "soak:74.5C"
    with pytest.raises(ValidationError, match="a run is stopped above 75 °C"):
        matrix(ceiling, ("conditions", ["clean", "soak:75C"]))
