"""What every runtime adapter owes, checked through real worker processes on the quickstart nets."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from device_worker import wire
from tests.unit.device_worker.harness import (
    QUICKSTART,
    REPO,
    Array,
    WorkerProcess,
    gemm,
)

TFLITE_PYTHON = REPO / ".venv-tflite" / "bin" / "python"
MODELS = QUICKSTART / "models"
SAMPLES = 40

_BARE_ORT = """
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
x = np.load(sys.argv[2])
rows = [session.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))]
np.save(sys.argv[3], np.concatenate(rows))
"""
_BARE_TFLITE = """
import sys, numpy as np
try:
    from ai_edge_litert import interpreter as tfl
except ImportError:
    from tflite_runtime import interpreter as tfl
net = tfl.Interpreter(model_path=sys.argv[1], num_threads=1,
                      experimental_op_resolver_type=tfl.OpResolverType[sys.argv[4]])
net.allocate_tensors()
feed, fetch = net.get_input_details()[0]["index"], net.get_output_details()[0]["index"]
out = []
for row in np.load(sys.argv[2]):
    net.set_tensor(feed, row[None])
    net.invoke()
    out.append(net.get_tensor(fetch))
np.save(sys.argv[3], np.concatenate(out))
"""


class Case(NamedTuple):
    """A runtime configuration, and how to run the same model with no worker in between."""

    spec: wire.RuntimeSpec
    python: str
    model: Path
    script: str
    resolver: str = ""

    def inputs(self) -> dict[str, Array]:
        """Real digits in the form that the model takes."""
        x = np.load(QUICKSTART / "digits_32x32.npz")["x"][:SAMPLES]
        if self.model.suffix == ".onnx":
            return {"image": np.ascontiguousarray(x.transpose(0, 3, 1, 2))}
        scale, zero = 0.003921568859368563, -128
        return {"image": np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8)}


def tflite_case(runtime: str, python: str, kernels: str, resolver: str) -> Case:
    spec = wire.RuntimeSpec(runtime, kernels=kernels)
    return Case(spec, python, MODELS / "digits_ds.int8.tflite", _BARE_TFLITE, resolver)


LITERT = tflite_case("litert", sys.executable, "default", "AUTO")
REFERENCE = tflite_case("litert", sys.executable, "reference", "BUILTIN_REF")
OLD_TFLITE = tflite_case("tflite-runtime", str(TFLITE_PYTHON), "default", "AUTO")
ORT = Case(
    wire.RuntimeSpec("onnxruntime"), sys.executable, MODELS / "digits_ds.u8s8.onnx", _BARE_ORT
)
CASES = {
    "onnxruntime": ORT,
    "litert": LITERT,
    "litert-reference": REFERENCE,
    "litert-builtin": tflite_case(
        "litert", sys.executable, "builtin", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    ),
    "tflite-runtime": OLD_TFLITE,
}


def need(case: Case) -> Case:
    if not Path(case.python).exists():
        pytest.skip("no .venv-tflite on this machine: tflite-runtime is not available here")
    return case


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return need(CASES[request.param])


def worker(case: Case, root: Path, **fields: Any) -> WorkerProcess:
    return WorkerProcess(root, python=case.python, **fields)


def run(case: Case, root: Path, **fields: Any) -> tuple[wire.JobResult, Array]:
    with worker(case, root) as process:
        result = process.run(process.job(case.model, case.inputs(), case.spec, **fields))
        return result, np.load(result.outputs[0].path)


def bare(case: Case, folder: Path) -> Array:
    """The same inferences by a plain script with no worker in between."""
    np.save(folder / "bare_in.npy", case.inputs()["image"])
    argv = [case.python, "-c", case.script, str(case.model), str(folder / "bare_in.npy")]
    subprocess.run([*argv, str(folder / "bare_out.npy"), case.resolver], check=True)
    found: Array = np.load(folder / "bare_out.npy")
    return found


def test_outputs_are_the_runtimes_own_bytes(case: Case, tmp_path: Path) -> None:
    result, output = run(case, tmp_path)
    expected = bare(case, tmp_path)
    assert output.dtype == expected.dtype
    assert output.shape == expected.shape == (SAMPLES, 10)
    assert output.tobytes() == expected.tobytes()
    hashes = np.load(result.files["sample_hashes"].path)
    assert [row.tobytes() for row in hashes] == [
        hashlib.sha256(row.tobytes()).digest() for row in expected
    ]


def test_quantisation_is_what_the_runtime_says(case: Case, tmp_path: Path) -> None:
    output = run(case, tmp_path)[0].outputs[0]
    if case.model.suffix == ".onnx":
        assert (output.dtype, output.scale, output.zero_point) == ("float32", None, None)
    else:
        assert (output.dtype, output.zero_point) == ("int8", -39)
        assert output.scale == pytest.approx(0.10009113699197769, rel=1e-12)


def test_repeats_and_threads_are_bit_identical(case: Case, tmp_path: Path) -> None:
    result, one = run(case, tmp_path / "one", samples=8, repeat=10)
    assert result.repeats == wire.Repeats(count=10, samples=8)
    two_threads = case._replace(spec=replace(case.spec, threads=2))
    result, two = run(two_threads, tmp_path / "two", samples=8)
    assert two.tobytes() == one.tobytes()
    assert result.environment["threads"] == 2


def test_the_environment_names_the_library_that_ran(case: Case, tmp_path: Path) -> None:
    facts = run(case, tmp_path, samples=1)[0].environment["runtime"]
    distribution = {"litert": "ai-edge-litert"}.get(case.spec.runtime, case.spec.runtime)
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    version = subprocess.run(
        [case.python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert (facts["name"], facts["version"]) == (case.spec.runtime, version)


def test_a_truncated_model_is_a_model_error(case: Case, tmp_path: Path) -> None:
    broken = tmp_path / case.model.name
    broken.write_bytes(case.model.read_bytes()[:5000])
    with worker(case, tmp_path / "root") as process:
        kind, code, what = process.refused(process.job(broken, case.inputs(), case.spec))
        assert (kind, code) == ("model_error", "E-MODEL-LOAD")
        assert what
        assert "\n" not in what
        job = process.job(case.model, case.inputs(), case.spec, attempt="next", samples=1)
        process.run(job)


def test_inputs_that_do_not_fit_are_a_model_error(case: Case, tmp_path: Path) -> None:
    x = case.inputs()["image"]
    with worker(case, tmp_path) as process:
        for number, bad in enumerate((x[:, :, :1], x.astype(np.float64), x[..., None])):
            job = process.job(case.model, {"x": bad}, case.spec, attempt=f"a{number}")
            assert process.refused(job)[:2] == ("infra_error", "E-INPUT-MISFIT")


def test_options_that_the_runtime_lacks_are_not_available(case: Case, tmp_path: Path) -> None:
    specs = [
        replace(case.spec, kernels="no-such"),
        replace(case.spec, providers=["CUDAExecutionProvider"]),
    ]
    if case.spec.runtime != "onnxruntime":
        specs.append(replace(case.spec, session={"a": "b"}))
    with worker(case, tmp_path) as process:
        job = process.job(case.model, case.inputs(), case.spec)
        for spec in specs:
            found = process.refused(replace(job, runtime=spec))
            assert found[:2] == ("not_available", "E-RUNTIME-OPTION")


def test_a_runtime_that_is_not_installed_is_not_available(tmp_path: Path) -> None:
    case = need(OLD_TFLITE)
    with WorkerProcess(tmp_path, python=sys.executable) as process:
        found = process.refused(process.job(case.model, case.inputs(), case.spec))
        assert found[:2] == ("not_available", "E-RUNTIME-MISSING")
    with WorkerProcess(tmp_path, python=case.python, token=2) as process:
        found = process.refused(process.job(LITERT.model, LITERT.inputs(), LITERT.spec))
        assert found[:2] == ("not_available", "E-RUNTIME-MISSING")


def test_a_runtime_built_for_another_numpy_is_not_the_models_fault(tmp_path: Path) -> None:
    """tflite-runtime 2.14 imports under NumPy 2 and fails when the interpreter is built."""
    case = need(OLD_TFLITE)
    packages = next(TFLITE_PYTHON.parents[1].glob("lib/python*/site-packages"))
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name in packages.glob("tflite_runtime*"):
        (mixed / name.name).symlink_to(name)
    with WorkerProcess(tmp_path / "root", env={"PYTHONPATH": str(mixed)}) as process:
        found = process.refused(process.job(case.model, case.inputs(), case.spec))
        assert found[:2] == ("not_available", "E-RUNTIME-BROKEN")


def test_xnnpack_takes_over_what_litert_gives_it(tmp_path: Path) -> None:
    operators = 13
    default = run(LITERT, tmp_path / "a", samples=1)[0].backend
    assert default == wire.Backend("default", {"XNNPACK": operators})
    reference = run(REFERENCE, tmp_path / "b", samples=1)[0].backend
    assert reference == wire.Backend("reference", {"reference": operators})
    builtin = run(CASES["litert-builtin"], tmp_path / "c", samples=1)[0].backend
    assert builtin == wire.Backend("builtin", {"builtin": operators})


def test_old_tflite_without_xnnpack_for_int8_is_no_false_alarm(tmp_path: Path) -> None:
    case = need(OLD_TFLITE)
    backend = run(case, tmp_path / "int8", samples=1)[0].backend
    assert backend == wire.Backend("default", {"builtin": 13})
    x = np.load(QUICKSTART / "digits_32x32.npz")["x"][:2]
    with worker(case, tmp_path / "fp32") as process:
        job = process.job(MODELS / "digits_ds.fp32.tflite", {"x": x}, case.spec)
        backend = process.run(job).backend
    assert backend.nodes["XNNPACK"] > 0
    assert backend.fallbacks == []


def with_tanh(source: Path, target: Path) -> Path:
    """The model with tanh fused into its first convolution, which no XNNPACK takes."""
    model: Any = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    first = next(
        op.builtinOptions
        for op in model.subgraphs[0].operators
        if isinstance(op.builtinOptions, schema.Conv2DOptionsT)
    )
    first.fusedActivationFunction = schema.ActivationFunctionType.TANH
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(builder.Output())
    return target


@pytest.mark.parametrize(
    ("case", "kind"), [(LITERT, "fp32"), (LITERT, "int8"), (OLD_TFLITE, "fp32")]
)
def test_one_operator_that_xnnpack_leaves_out_is_named(
    case: Case, kind: str, tmp_path: Path
) -> None:
    case = need(case)
    source = MODELS / f"digits_cnn.{kind}.tflite"
    x = np.zeros((2, 8, 8, 1), np.float32 if kind == "fp32" else np.int8)
    with worker(case, tmp_path) as process:
        whole = process.run(process.job(source, {"x": x}, case.spec)).backend
        broken = with_tanh(source, tmp_path / "tanh.tflite")
        found = process.run(process.job(broken, {"x": x}, case.spec)).backend
    assert (whole.nodes, whole.fallbacks) == ({"XNNPACK": 6}, [])
    assert found.nodes == {"XNNPACK": 5, "builtin": 1}
    (line,) = found.fallbacks
    assert line.startswith("XNNPACK not applied to CONV_2D beside others that it took: ")


def test_a_lost_xnnpack_is_reported_with_its_evidence(tmp_path: Path) -> None:
    """Without CPU facts under /proc and /sys LiteRT drops XNNPACK and only writes to stderr."""
    hide = "mount -t tmpfs none /sys && mount -t tmpfs none /proc && "
    probe = ["unshare", "-m", "sh", "-c", hide + "true"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("cannot hide /sys and /proc: needs root and unshare")
    argv = ("unshare", "-m", "sh", "-c", hide + 'exec "$0" "$@"')
    with worker(LITERT, tmp_path, argv=argv) as process:
        result = process.run(process.job(LITERT.model, LITERT.inputs(), LITERT.spec, samples=1))
        (line,) = result.backend.fallbacks
        assert line.startswith("XNNPACK not applied to ")
        assert "CONV_2D" in line
        assert "cpuinfo" in line
        assert result.backend.nodes == {"builtin": 13}
        assert "cpuinfo" in process.stderr(), "evidence must reach the log as well"


def test_the_plan_hash_is_stable_between_processes_and_tells_plans_apart(tmp_path: Path) -> None:
    first = run(ORT, tmp_path / "a", samples=1)[0].backend
    again = run(ORT, tmp_path / "b", samples=1)[0].backend
    assert first == again
    assert first.plan_sha256
    assert sum(first.operators.values()) == sum(first.nodes.values())
    assert any(kind.endswith("QLinearConv") for kind in first.operators)
    assert first.nodes["CPUExecutionProvider"] > 0
    unfused = ORT._replace(spec=replace(ORT.spec, session={"session.disable_quant_qdq": "1"}))
    other = run(unfused, tmp_path / "c", samples=1)[0].backend
    assert other.plan_sha256 != first.plan_sha256
    assert other.nodes["CPUExecutionProvider"] > first.nodes["CPUExecutionProvider"]


def test_session_entries_reach_onnx_runtime(tmp_path: Path) -> None:
    """Flushing denormals to zero is an entry whose effect shows in the outputs.

    ONNX Runtime fixes it for the whole process at the first session, without a word: a warm
    worker must refuse the next job that wants it otherwise.
    """
    flush = replace(ORT.spec, session={"session.set_denormal_as_zero": "1"})
    x = {"x": np.full((1, 4), 1e-40, np.float32)}
    for token, (first, second, zero) in enumerate(
        [(ORT.spec, flush, False), (flush, ORT.spec, True)], start=1
    ):
        with WorkerProcess(tmp_path, token=token) as process:
            job = process.job(gemm(tmp_path / "m.onnx"), x, first)
            output = np.load(process.run(job).outputs[0].path)
            assert (output == 0).all() == zero
            refused = process.refused(replace(job, runtime=second))
            assert refused[:2] == ("infra_error", "E-RUNTIME-PROCESS")


def test_a_provider_that_gets_no_operator_is_a_reported_fallback(tmp_path: Path) -> None:
    import onnxruntime

    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this build offers no second provider")
    spec = wire.RuntimeSpec("onnxruntime", providers=["AzureExecutionProvider"])
    with WorkerProcess(tmp_path) as process:
        x = {"x": np.ones((1, 4), np.float32)}
        backend = process.run(process.job(gemm(tmp_path / "m.onnx"), x, spec)).backend
    assert backend.planned == "AzureExecutionProvider"
    assert backend.fallbacks == ["asked for AzureExecutionProvider, it was given no operator"]
    assert backend.nodes == {"CPUExecutionProvider": 1}


def test_telemetry_travels_as_json_lines(tmp_path: Path) -> None:
    result, _ = run(ORT, tmp_path, repeat=20, telemetry_hz=50.0)
    rows = [
        json.loads(line) for line in Path(result.files["telemetry"].path).read_text().splitlines()
    ]
    assert len(rows) == result.telemetry.samples >= 2
    assert all(set(row) == {"t_s", "values"} and row["values"]["mem/free"] for row in rows)
    stamps = [row["t_s"] for row in rows]
    assert stamps == sorted(stamps)
    assert stamps[-1] >= result.run_ns / 1e9
