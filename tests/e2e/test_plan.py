"""`plan` refuses what `run` refuses before it asks a device, in the same line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx import helper as h

from orchestrator.cli.main import invoke
from tests.support.tiny import MODELS, Tiny


def broken_policy(tiny: Tiny) -> None:
    tiny.policy["gates"]["G3"] = {"enabled": True, "min_ratio": "most"}


def unknown_gate(tiny: Tiny) -> None:
    tiny.policy["gates"]["G99"] = {"enabled": True}


def wrong_image_size(tiny: Tiny) -> None:
    tiny.inputs["path"] = tiny.inputs["path"].replace("8x8", "32x32")


def quantised_parent(tiny: Tiny) -> None:
    tiny.matrix["models"][0]["fp32"]["path"] = tiny.file["path"]


def other_parent(tiny: Tiny) -> None:
    tiny.matrix["models"][0]["fp32"]["path"] = str(MODELS / "digits_ds.fp32.onnx")


def damaged_model(tiny: Tiny) -> None:
    (tiny.folder / "cut.onnx").write_bytes(Path(tiny.file["path"]).read_bytes()[:999])
    tiny.file["path"] = "cut.onnx"


def labels_of_other_classes(tiny: Tiny) -> None:
    found = np.load(tiny.inputs["path"])
    np.savez(tiny.folder / "other.npz", x=found["x"][:20], y=np.full(20, 77))
    tiny.inputs["path"] = "other.npz"


def nan_in_the_inputs(tiny: Tiny) -> None:
    x = np.load(tiny.inputs["path"])["x"][:20].astype(np.float32)
    x[3, 0] = np.nan
    np.savez(tiny.folder / "nan.npz", x=x, y=np.zeros(20, np.int64))
    tiny.inputs["path"] = "nan.npz"


def one_unit_for_two_slots(tiny: Tiny) -> None:
    tiny.matrix["devices"] = [{"class": "class-bench"}, {"name": "bench"}]


def _output_of(tiny: Tiny, shape: list[Any] | None) -> None:
    x = h.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = h.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = h.make_graph(
        [h.make_node("Strange", ["x"], ["y"], domain="com.example")], "g", [x], [y]
    )
    opsets = [h.make_opsetid("", 17), h.make_opsetid("com.example", 1)]
    onnx.save(h.make_model(graph, opset_imports=opsets, ir_version=9), tiny.folder / "m.onnx")
    np.savez(tiny.folder / "x.npz", x=np.ones((20, 4), np.float32), y=np.zeros(20, np.int64))
    tiny.matrix["models"][0].update(fp32=None, files=[{"name": "f", "path": "m.onnx"}])
    tiny.inputs["path"] = "x.npz"


def output_of_unknown_rank(tiny: Tiny) -> None:
    _output_of(tiny, None)


def output_of_unknown_length(tiny: Tiny) -> None:
    _output_of(tiny, ["k"])


def output_of_one_value(tiny: Tiny) -> None:
    _output_of(tiny, [1, 1])


UNSAID = "the file does not say the shape of its output 'y', which is then known only after a run"


@pytest.mark.parametrize(
    ("spoil", "id", "said"),
    [
        (broken_policy, "E-MATRIX-TYPE", "policy.yaml"),
        (unknown_gate, "E-MATRIX-KEY", "G99"),
        (wrong_image_size, "E-INPUT-SHAPE", "samples are"),
        (quantised_parent, "E-FP32-PARENT", "quantised"),
        (other_parent, "E-FP32-PARENT", "elements a sample"),
        (damaged_model, "E-MODEL-UNREADABLE", "cut.onnx"),
        (labels_of_other_classes, "E-TASK-MISMATCH", "0..9"),
        (nan_in_the_inputs, "E-INPUT-NAN", "sample 3"),
        (one_unit_for_two_slots, "E-SLOTS", "without a unit"),
        (output_of_unknown_rank, "E-MODEL-UNREADABLE", UNSAID),
        (output_of_unknown_length, "E-TASK-MISMATCH", UNSAID),
        (output_of_one_value, "E-TASK-MISMATCH", "the largest of fewer than two values"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_plan_refuses_what_run_would(
    spoil: Callable[[Tiny], None],
    id: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny, nowhere = Tiny(tmp_path), tmp_path / "nowhere"
    spoil(tiny)
    path = str(tiny.write())
    assert invoke(["plan", path, "--store", str(nowhere)]) == 2
    planned = capsys.readouterr()
    assert planned.out == ""
    (line,) = planned.err.splitlines()
    assert line.endswith(f"[{id}]")
    assert said in line
    assert not nowhere.exists()
    assert not list(tmp_path.glob("devices/*")), "no device was visited"
    assert invoke(["submit", path, "--store", str(tmp_path / "store")]) == 2
    submitted = capsys.readouterr()
    assert (submitted.out, submitted.err) == ("", planned.err)


def test_what_is_cut_off_by_the_selection_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = Tiny(tmp_path)
    (tmp_path / "cut.onnx").write_bytes(b"")
    tiny.matrix["models"][0]["files"].append({"name": "cut", "path": "cut.onnx"})
    path = str(tiny.write())
    assert invoke(["plan", path]) == 2
    assert invoke(["plan", path, "--select", "!*.cut-*"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 cell on 1 device, 20 inferences"
