from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.errors import Exit, InputError
from orchestrator.fingerprint.pack import probes
from orchestrator.models import inspect as inspecting
from orchestrator.models.inspect import ModelInfo, TensorInfo, check_parent, inspect, single_input
from orchestrator.models.inspect_tflite import read_tflite

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "matrices" / "quickstart" / "models"


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        inspect(path)
    assert caught.value.exit_code == Exit.USAGE
    assert caught.value.where == str(path)
    assert "\n" not in str(caught.value)
    return caught.value


def saved(
    tmp_path: Path,
    nodes: list[Any],
    constants: dict[str, Any],
    out: tuple[int, list[Any] | None] = (TensorProto.FLOAT, [1, 4]),
    input_type: int = TensorProto.FLOAT,
) -> Path:
    """A model from ``x`` [N, 4] to ``y``."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", input_type, ["N", 4])],
        [helper.make_tensor_value_info("y", *out)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def node(kind: str, *inputs: str, to: str, **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [to], **attributes)


S, Z8, ZU8 = np.float32(0.25), np.int8(-3), np.uint8(7)
Q = node("QuantizeLinear", "x", "s", "z", to="q")


@pytest.mark.parametrize(
    ("tail", "zero", "lattice"),
    [
        ([node("DequantizeLinear", "q", "s", "z", to="y")], Z8, (0.25, -3, -128, 127)),
        ([node("DequantizeLinear", "q", "s", "z", to="y")], ZU8, (0.25, 7, 0, 255)),
        (
            [
                node("DequantizeLinear", "q", "s", "z", to="d"),
                node("Reshape", "d", "shape", to="r"),
                node("Identity", "r", to="y"),
            ],
            Z8,
            (0.25, -3, -128, 127),
        ),
        (
            [
                node("DequantizeLinear", "q", "s", "z", to="d"),
                node("Flatten", "d", to="y"),
            ],
            ZU8,
            (0.25, 7, 0, 255),
        ),
        (
            [node("DequantizeLinear", "q", "s", "z", to="d"), node("Softmax", "d", to="y")],
            Z8,
            (None, None, None, None),
        ),
        ([node("DequantizeLinear", "q", "s4", "z4", to="y", axis=1)], Z8, (None,) * 4),
    ],
)
def test_the_lattice_of_a_float_output(
    tmp_path: Path, tail: list[Any], zero: Any, lattice: tuple[Any, ...]
) -> None:
    constants = {
        "s": S,
        "z": zero,
        "shape": np.array([1, 4]),
        "s4": np.full(4, S),
        "z4": np.full(4, zero),
    }
    (out,) = inspect(saved(tmp_path, [Q, *tail], constants)).outputs
    assert (out.scale, out.zero_point, out.code_min, out.code_max) == lattice
    assert (out.name, out.dtype, out.shape) == ("y", "float32", (1, 4))


def test_without_a_zero_point_codes_are_uint8(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x", "s", to="q"),
        node("DequantizeLinear", "q", "s", to="y"),
    ]
    (out,) = inspect(saved(tmp_path, nodes, {"s": S})).outputs
    assert (out.scale, out.zero_point, out.code_min, out.code_max) == (0.25, 0, 0, 255)


def test_integer_inputs_and_outputs(tmp_path: Path) -> None:
    nodes = [
        node("DequantizeLinear", "x", "s", "z", to="d"),
        node("QuantizeLinear", "d", "s2", "z", to="y"),
    ]
    constants = {"s": S, "s2": np.float32(0.5), "z": Z8}
    path = saved(tmp_path, nodes, constants, (TensorProto.INT8, [1, 4]), TensorProto.INT8)
    info = inspect(path)
    assert info.inputs == (TensorInfo("x", "int8", (-1, 4), 0.25, -3, -128, 127),)
    assert info.outputs == (TensorInfo("y", "int8", (1, 4), 0.5, -3, -128, 127),)
    assert info.operators == {"DequantizeLinear": 1, "QuantizeLinear": 1}
    assert info.quantised == 2


def test_a_scale_in_a_constant_node_and_an_undeclared_output_shape(tmp_path: Path) -> None:
    nodes = [
        node("Constant", to="s", value=numpy_helper.from_array(np.asarray(S), "s")),
        Q,
        node("DequantizeLinear", "q", "s", "z", to="y"),
    ]
    (out,) = inspect(saved(tmp_path, nodes, {"z": Z8}, (TensorProto.FLOAT, None))).outputs
    assert (out.scale, out.shape) == (0.25, (-1, 4))


def test_external_data_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, [node("Add", "x", "w", to="y")], {"w": np.zeros(4, np.float32)})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    for present in (True, False):
        error = refusal(path)
        assert error.id == "E-MODEL-EXTERNAL-DATA"
        assert "one file" in str(error.fix)
        if present:
            (tmp_path / "w.bin").unlink()


def test_external_data_in_a_subgraph_is_found(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, [4])
    branch = helper.make_graph([node("Identity", "w", to="b")], "b", [], [out], [tensor])
    path = saved(
        tmp_path,
        [
            node("If", "c", to="i", then_branch=branch, else_branch=branch),
            node("Add", "x", "i", to="y"),
        ],
        {"c": np.array(True)},
    )
    assert refusal(path).id == "E-MODEL-EXTERNAL-DATA"


@pytest.mark.parametrize("name", ["digits_ds.u8s8.onnx", "digits_ds.int8.tflite"])
def test_truncated_models(tmp_path: Path, name: str) -> None:
    whole = (QUICKSTART / name).read_bytes()
    path = tmp_path / name
    for cut in (0, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert refusal(path).id == "E-MODEL-UNREADABLE", cut
    path.write_bytes(b"\xff" * 1000)
    assert refusal(path).id == "E-MODEL-UNREADABLE"


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "m.pb").write_bytes(b"x")
    for name in ("none.onnx", "folder.onnx", "m.pb"):
        assert refusal(tmp_path / name).id == "E-MODEL-UNREADABLE"


def test_the_quickstart(tmp_path: Path) -> None:
    onnx_file = inspect(QUICKSTART / "digits_ds.u8s8.onnx")
    assert single_input(onnx_file).shape == (-1, 1, 32, 32)
    (logits,) = onnx_file.outputs
    assert logits.scale is not None
    assert (logits.dtype, logits.code_min, logits.code_max) == ("float32", 0, 255)
    tflite = inspect(QUICKSTART / "digits_ds.int8.tflite")
    assert single_input(tflite).dtype == "int8"
    assert single_input(tflite).shape == (1, 32, 32, 1)
    assert tflite.outputs[0].scale == pytest.approx(logits.scale)
    assert tflite.operators["DEPTHWISE_CONV_2D"] == 5
    parent = inspect(QUICKSTART / "digits_ds.fp32.onnx")
    assert parent.quantised == 0
    assert inspect(QUICKSTART / "digits_ds.fp32.tflite").quantised == 0
    check_parent(onnx_file, parent)
    check_parent(tflite, parent)
    for wrong in ("digits_cnn.fp32.onnx", "digits_ds.u8u8.onnx", "digits_ds.int8.tflite"):
        with pytest.raises(InputError) as caught:
            check_parent(onnx_file, inspect(QUICKSTART / wrong))
        assert caught.value.id == "E-FP32-PARENT"


def info(
    inputs: list[TensorInfo], outputs: list[TensorInfo], quantised: int = 0, path: str = "f"
) -> ModelInfo:
    return ModelInfo(path, "onnx", tuple(inputs), tuple(outputs), {}, quantised)


F4, F5 = TensorInfo("a", "float32", (1, 4)), TensorInfo("a", "float32", (1, 5))
I4, T4 = TensorInfo("a", "int8", (1, 4), 0.5, 0), TensorInfo("a", "int32", (1, 4))


@pytest.mark.parametrize(
    ("parent", "says"),
    [
        (info([F4], [F4, F4]), "it has 2 outputs, not 1"),
        (info([F4], [F5]), "its output 'a' has 5 elements a sample, not 4"),
        (info([F5], [F4]), "its input 'a' has 5 elements"),
        (info([I4], [F4]), "its input 'a' is int8, not float"),
        (info([F4], [I4]), "its output 'a' is int8, not float"),
        (info([F4], [F4], quantised=3), "3 of its tensors or operators are quantised"),
    ],
)
def test_what_is_no_parent(parent: ModelInfo, says: str) -> None:
    with pytest.raises(InputError) as caught:
        check_parent(info([I4], [I4]), parent)
    assert caught.value.id == "E-FP32-PARENT"
    assert says in str(caught.value)


def test_what_is_a_parent() -> None:
    check_parent(info([I4], [I4]), info([F4], [F4]))
    check_parent(info([T4], [I4]), info([T4], [F4]))  # token ids stay integers
    loose = TensorInfo("a", "float32", (-1, -1))
    check_parent(info([I4], [I4]), info([F4], [loose]))


def test_several_inputs_are_refused() -> None:
    two = info([F4, T4], [F4])
    for call in (lambda: single_input(two), lambda: check_parent(two, info([F4], [F4]))):
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.id == "E-MODEL-INPUTS"


def test_a_slow_reader_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "TIMEOUT", 0.001)
    assert "took longer" in refusal(QUICKSTART / "digits_ds.u8s8.onnx").what


def test_a_crashing_reader_does_not_crash_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    assert "SIGSEGV" in refusal(QUICKSTART / "digits_ds.u8s8.onnx").what
    script.write_text("#!/bin/sh\necho noise\necho the reason >&2\nexit 1\n")
    assert "the reason" in refusal(QUICKSTART / "digits_ds.u8s8.onnx").what


def child(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from orchestrator.models.inspect_child import *\n" + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_the_childs_limits_hold(tmp_path: Path) -> None:
    limits = "[resource.getrlimit(k)[0] for k in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)]"
    assert child(f"limit(); print({limits})") == "[0, 0]"
    hog = "limit()\ntry: bytearray(5 << 30)\nexcept MemoryError: print('refused')"
    assert child(hog) == "refused"


def test_memory_and_noise_become_one_answer(tmp_path: Path) -> None:
    replaced = (
        "import orchestrator.models.inspect_child as c\n"
        "def hog(path):\n"
        "    print('noise of a runtime')\n"
        "    return bytearray(5 << 30)\n"
        "c.read = hog\n"
        "c.main('x.onnx')"
    )
    answer = json.loads(child(replaced))
    assert answer["error"] == "E-MODEL-UNREADABLE"
    assert "4 GiB" in answer["what"]


def test_products_of_a_tflite_file_are_known_by_their_family_and_activation() -> None:
    """Against the pack, whose probes are named for what they ask about."""
    seen: set[tuple[str, bool]] = set()
    for probe in probes("tflite"):
        kind = probe.family.split()[0]
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        family, relu = probe.family.removesuffix(" float ends"), "relu" in probe.name.split(".")
        untold = "float32" in family or "one channel" in family
        wanted = {} if untold else {family: (1, int(relu))}
        with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
            file.write(probe.model)
            file.flush()
            assert read_tflite(Path(file.name))["families"] == wanted, probe.name
        seen.add((family, relu))
    assert len(seen) > 20
