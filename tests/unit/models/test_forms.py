"""Model files as people have them: what the coordinator takes, a real worker prepares and runs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import TensorProto, helper

from device_worker import wire
from device_worker.runtimes.words import explained
from orchestrator.errors import InputError
from orchestrator.models.inspect import TensorInfo, code_range
from orchestrator.models.inspect_child import read
from orchestrator.runs.staged import StagedModel
from orchestrator.staging.prepare import prepare
from tests.support.flatfile import Flat
from tests.unit.device_worker.harness import WorkerProcess

MODELS = Path(__file__).parents[2] / "data" / "models"
ORT, LITERT = wire.RuntimeSpec("onnxruntime"), wire.RuntimeSpec("litert")
Array = NDArray[Any]


def edited(path: Path, into: Path, change: Callable[[Any], None]) -> Path:
    """A TFLite file with something else in it."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    into.write_bytes(bytes(builder.Output()))
    return into


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with WorkerProcess(tmp_path_factory.mktemp("device")) as process:
        yield process


def looked_at(path: Path) -> dict[str, Any]:
    """What the inspecting child answers, without a child."""
    return json.loads(json.dumps(read(path)))  # type: ignore[no-any-return]  # an object


def asked(worker: WorkerProcess, model: Path, x: Array, spec: wire.RuntimeSpec) -> dict[str, Any]:
    """Inspected, prepared and run as a cell would be: the worker's reply."""
    (only,) = looked_at(model)["inputs"]
    info = TensorInfo(**only | {"shape": tuple(only["shape"])})
    job = worker.job(model, {info.name: prepare(x, "same", info)}, spec, attempt=uuid.uuid4().hex)
    return worker.ask("run", job=wire.dump(job))


def answer(worker: WorkerProcess, model: Path, x: Array, spec: wire.RuntimeSpec) -> Array:
    """The first output."""
    reply = asked(worker, model, x, spec)
    assert reply["type"] == "result", reply
    found: Array = np.load(reply["result"]["outputs"][0]["path"])
    return found


def as_it_is(model: Any) -> None:
    """A file as it came."""


def axes(*signature: int) -> Callable[[Any], None]:
    """The same length free in input and output."""

    def change(model: Any) -> None:
        tensors = model.subgraphs[0].tensors
        for tensor in (tensors[0], tensors[-1]):
            tensor.shape = np.array([1] * (len(signature) - 1) + [tensor.shape[-1]], np.int32)
            tensor.shapeSignature = np.array([*signature[:-1], tensor.shape[-1]], np.int32)

    return change


@pytest.mark.parametrize(
    ("signature", "lengths"),
    [((1, -1, 16), (10,)), ((-1, -1, 16), (7,)), ((1, -1, -1, 16), (3, 5)), ((-1, 16), ())],
)
def test_free_axes_of_a_tflite_file_take_the_samples_lengths(
    tmp_path: Path, worker: WorkerProcess, signature: tuple[int, ...], lengths: tuple[int, ...]
) -> None:
    """Weights and rows: every row must give what it gives alone, under both kinds of kernels."""
    model = edited(MODELS / "t_dynseq.tflite", tmp_path / "m.tflite", axes(*signature))
    rng = np.random.default_rng(10)
    x = rng.integers(-128, 128, (3, *lengths, 16)).astype(np.int8)
    reference = wire.RuntimeSpec("litert", kernels="reference")
    found = [answer(worker, model, x, spec) for spec in (LITERT, reference)]
    rows = edited(MODELS / "t_dynseq.tflite", tmp_path / "rows.tflite", axes(-1, 16))
    alone = answer(worker, rows, x.reshape(-1, 16), reference)
    assert found[1].shape == (3, *lengths, 4)
    assert np.array_equal(found[1].reshape(-1, 4), alone)
    assert np.abs(found[0].astype(int) - found[1].astype(int)).max() <= 1


def test_symbolic_axes_of_an_onnx_file_take_the_samples_lengths(
    tmp_path: Path, worker: WorkerProcess
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "time", 4])],
    )
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    found = answer(worker, written(tmp_path, graph), x, ORT)
    assert np.array_equal(found, -x)


def written(folder: Path, graph: Any, opset: int = 17, ir: int = 8) -> Path:
    opsets = [helper.make_opsetid("", opset)]
    path = folder / "m.onnx"
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir)
    path.write_bytes(model.SerializeToString())
    return path


def unary(kind: str, given: int, gives: int, **attributes: Any) -> Any:
    return helper.make_graph(
        [helper.make_node(kind, ["x"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", given, [1, 4])],
        [helper.make_tensor_value_info("y", gives, [1, 4])],
    )


BITS = np.array([[1, 0, 0, 1], [0, 1, 1, 1]])


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float32])
def test_bool_inputs_and_outputs_under_onnx(
    tmp_path: Path, worker: WorkerProcess, dtype: Any
) -> None:
    """Zeros and ones of any type are a bool input's; what comes out is bool as well."""
    model = written(tmp_path, unary("Not", TensorProto.BOOL, TensorProto.BOOL))
    found = answer(worker, model, BITS.astype(dtype), ORT)
    assert found.dtype == np.bool_
    assert np.array_equal(found, BITS == 0)


def test_a_file_that_takes_bool(worker: WorkerProcess) -> None:
    x = np.random.default_rng(3).integers(0, 2, (4, 16)).astype(bool)
    found = answer(worker, MODELS / "bool.onnx", x, ORT)
    assert np.array_equal(found, answer(worker, MODELS / "bool.onnx", x.astype(np.float32), ORT))
    assert np.ptp(found) > 0


def test_bool_inputs_under_tflite(tmp_path: Path, worker: WorkerProcess) -> None:
    net = Flat()
    x, y = (net.tensor(name, [1, 4], "BOOL") for name in "xy")
    net.op("LOGICAL_NOT", [x], [y])
    model = net.write(tmp_path / "m.tflite", [x], [y])
    found = answer(worker, model, BITS.astype(bool), LITERT)
    assert found.dtype == np.bool_
    assert np.array_equal(found, BITS == 0)


@pytest.mark.parametrize(
    ("x", "dtype"), [([0, 2], "bool"), ([0.5, 1.0], "bool"), ([1.0, 7e4], "float16")]
)
def test_values_that_the_models_type_cannot_hold_are_refused(x: list[float], dtype: str) -> None:
    with pytest.raises(InputError) as caught:
        prepare(np.array([x]), "same", TensorInfo("x", dtype, (1, 2)))
    assert caught.value.id == "E-INPUT-DTYPE"


def test_half_precision_inputs(tmp_path: Path, worker: WorkerProcess) -> None:
    model = written(tmp_path, unary("Neg", TensorProto.FLOAT16, TensorProto.FLOAT16))
    found = answer(worker, model, BITS * 0.5, ORT)
    assert found.dtype == np.float16
    assert np.array_equal(found, -BITS * 0.5)


@pytest.mark.parametrize("name", ["t_int2.tflite", "t_int2ch.tflite"])
def test_weights_of_two_bits(worker: WorkerProcess, name: str) -> None:
    x = np.random.default_rng(5).integers(-128, 128, (4, 16)).astype(np.int8)
    found = answer(worker, MODELS / name, x, LITERT)
    assert found.shape == (4, 4)


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "INT2", "BFLOAT16", "FLOAT8_E4M3FN"])
def test_tensors_of_types_that_numpy_has_not_can_be_read(tmp_path: Path, kind: str) -> None:
    """Of weights with a scale: the file is read, whatever a device will say of it."""

    def change(model: Any) -> None:
        model.subgraphs[0].tensors[1].type = getattr(schema.TensorType, kind)

    found = looked_at(edited(MODELS / "t_int2.tflite", tmp_path / "m.tflite", change))
    assert found["quantised"] > 1


@pytest.mark.parametrize(
    ("dtype", "codes"),
    [
        ("int2", (-2, 1)),
        ("uint2", (0, 3)),
        ("int4", (-8, 7)),
        ("uint4", (0, 15)),
        ("int8", (-128, 127)),
        ("uint16", (0, 65535)),
        ("int64", (-(2**63), 2**63 - 1)),
        ("float16", None),
        ("bool", None),
        ("variant", None),
    ],
)
def test_codes_of_integer_types(dtype: str, codes: tuple[int, int] | None) -> None:
    assert code_range(dtype) == codes


def signatures(**graphs: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        named = model.signatureDefs
        model.signatureDefs = []
        for name, graph in graphs.items():
            made = schema.SignatureDefT()
            made.signatureKey, made.subgraphIndex = name, graph
            made.inputs, made.outputs = named[graph].inputs, named[graph].outputs
            model.signatureDefs.append(made)

    return change


@pytest.mark.parametrize(
    ("change", "main", "others"),
    [
        (as_it_is, "encode", ("decode",)),
        (signatures(serving_default=0), "serving_default", ()),
        (signatures(a=0, b=1, c=1), "a", ("b", "c")),
        (signatures(encode=0, same=0), "encode", ()),
        (signatures(), None, ()),
        (signatures(decode=1), None, ("decode",)),
    ],
)
def test_signatures_of_other_graphs_are_named_as_not_measured(
    tmp_path: Path, change: Callable[[Any], None], main: str | None, others: tuple[str, ...]
) -> None:
    found = looked_at(edited(MODELS / "v_sigs.tflite", tmp_path / "m.tflite", change))
    assert (found["signature"], found["unmeasured"]) == (main, list(others))
    told = staged(main, others).only_part()
    assert (told is None) == (not others)
    for name in others:
        assert told is not None
        assert repr(name) in told


def staged(signature: str | None, unmeasured: tuple[str, ...]) -> StagedModel:
    return StagedModel(
        sha256="0" * 64,
        size=1,
        format="tflite",
        input_name="x",
        outputs=(),
        signature=signature,
        unmeasured=unmeasured,
    )


def test_an_answer_says_which_signature_it_is_of() -> None:
    assert staged("encode", ("decode",)).only_part() == (
        "only signature 'encode' is measured; nothing is known of 'decode', in graphs of their own"
    )


def newer(ir: int = 8, opset: int = 17, domain: str = "") -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.ir_version = ir
        model.opset_import[0].version = opset
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 3))
            model.graph.node[0].domain = domain
            model.graph.node[0].op_type = "Sparkle"

    return change


@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("ir14.onnx", as_it_is, "Unsupported model IR version: 14"),
        ("opset27.onnx", as_it_is, "opset 27 of ai.onnx, but this runtime knows them up to 2"),
        ("ir14.onnx", newer(ir=99), "Unsupported model IR version: 99"),
        ("ir14.onnx", newer(opset=99), "opset 99 of ai.onnx, but this runtime knows them up to "),
        ("ir14.onnx", newer(domain="my.own"), "Fatal error: my.own:Sparkle(-1) is not a regist"),
    ],
)
def test_a_form_newer_than_the_runtime_is_named_with_what_helps(
    tmp_path: Path, worker: WorkerProcess, name: str, change: Callable[[Any], None], cause: str
) -> None:
    model = onnx.load(MODELS / name)
    change(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    reply = asked(worker, path, np.zeros((1, 16), np.float32), ORT)
    assert (reply["kind"], reply["code"]) == ("model_error", "E-MODEL-LOAD")
    assert reply["what"].startswith(cause)
    assert "use a newer runtime, or convert the file for this one" in reply["mend"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "/src/core/env.cc:327 onnxruntime::{anonymous}::PosixThread::PosixThread(const char*, "
            "int, unsigned int (*)(int, Eigen::ThreadPoolInterface*), const Options&) "
            "pthread_create failed, error code: 11",
            "pthread_create failed, error code: 11",
        ),
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: "
            "/src/a.h:46 void (anonymous namespace)::F::operator()(int) const Bad (really) bad",
            "Bad (really) bad",
        ),
        ("/src/a.cc:1 no signature at all", "no signature at all"),
        ("/src/a.cc:1 f(int) ", "f(int)"),
        ("", "no message"),
    ],
)
def test_the_cause_comes_before_the_place(text: str, cause: str) -> None:
    assert explained(text)[0] == cause
