"""The worker's loop (telemetry at 10 Hz, latencies, hashes, outputs kept) against a bare one.

A pair is one job of the worker and one bare loop over the same samples, each in a session of its
own that was loaded and warmed up alike, in alternating order.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from device_worker import measure, wire
from device_worker.cache import Cache, sha256_file
from tests.benchmarks.kit import Spread, Table, ratios, scaled

QUICKSTART = Path(__file__).parents[2] / "matrices" / "quickstart"
PAIRS = 11
BLOCK_S = 0.4
"""Length of one side of a pair, so that the sampler looks several times."""
WARMUP = 3
HZ = 10.0
AIM = 1.02
SLOW_US = 500.0

Array = npt.NDArray[Any]
Runner = Callable[[Array], object]


@dataclass(frozen=True)
class Case:
    """``x``: [samples, ...] as the model takes it."""

    label: str
    model: Path
    spec: wire.RuntimeSpec
    x: Array


def run() -> list[Table]:
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name).resolve()
        return [_measure(case, folder) for case in _cases(folder)]


def _cases(folder: Path) -> list[Case]:
    ort = wire.RuntimeSpec("onnxruntime")
    litert = wire.RuntimeSpec("litert")
    reference = wire.RuntimeSpec("litert", kernels="reference")
    models = QUICKSTART / "models"
    small = np.load(QUICKSTART / "digits_8x8.npz")["x"].astype(np.float32)
    large = np.load(QUICKSTART / "digits_32x32.npz")["x"].astype(np.float32)
    picture = np.random.default_rng(0).integers(0, 255, (64, 32, 48, 48), dtype=np.uint8)
    return [
        Case("ONNX Runtime, 5 QLinearConv", _convolutions(folder / "s.onnx", 48), ort, picture),
        Case(
            "ONNX Runtime, 5 QLinearConv, large output",
            _convolutions(folder / "l.onnx", 1),
            ort,
            picture,
        ),
        Case(
            "LiteRT reference kernels, digits_ds FP32",
            models / "digits_ds.fp32.tflite",
            reference,
            large,
        ),
        Case(
            "LiteRT reference kernels, digits_ds",
            models / "digits_ds.int8.tflite",
            reference,
            large,
        ),
        Case("LiteRT, digits_ds", models / "digits_ds.int8.tflite", litert, large),
        Case("ONNX Runtime, digits_ds u8u8", models / "digits_ds.u8u8.onnx", ort, _nchw(large)),
        Case("ONNX Runtime, digits_cnn u8u8", models / "digits_cnn.u8u8.onnx", ort, _nchw(small)),
        Case("LiteRT, digits_cnn", models / "digits_cnn.int8.tflite", litert, small),
    ]


def _nchw(x: Array) -> Array:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def _convolutions(path: Path, last: int) -> Path:
    """uint8 [1, 32, 48, 48] through integer 3x3 convolutions of 32 channels, the last one strided.

    ``last``: its stride, which sets the size of the output and hardly the time.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    constants: dict[str, Array] = {
        "s": np.array(0.02, np.float32),
        "z": np.array(128, np.uint8),
        "w": rng.integers(0, 255, (32, 32, 3, 3), dtype=np.uint8),
    }
    names = ["x", "a", "b", "c", "d", "y"]
    nodes = [
        helper.make_node(
            "QLinearConv",
            [source, "s", "z", "w", "s", "z", "s", "z"],
            [target],
            pads=[1, 1, 1, 1],
            strides=[last, last] if target == "y" else [1, 1],
        )
        for source, target in itertools.pairwise(names)
    ]
    size = -(-48 // last)
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 32, 48, 48])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 32, size, size])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.save(model, path)
    return path


def _measure(case: Case, folder: Path) -> Table:
    x = case.x if case.model.suffix == ".onnx" else _as_taken(case)
    bare = _bare(case)
    probe = _timed(bare(), x[: min(len(x), 50)])
    samples = max(20, int(BLOCK_S / probe))
    x = np.concatenate([x] * -(-samples // len(x)))[:samples]
    cache = Cache(str(folder), 4 << 30)
    job = _job(case, x, folder)
    taken: dict[str, list[float]] = {"bare": [], "worker": []}
    for turn in range(-1, PAIRS):
        for arm in ("bare", "worker") if turn % 2 else ("worker", "bare"):
            if arm == "bare":
                seconds = _timed(bare(), x)
            else:
                result = measure.run_job(job, cache, str(folder), lambda _: None)
                seconds = result.run_ns / 1e9 / samples
            if turn >= 0:
                taken[arm].append(seconds)
    table = Table(f"worker's loop against a bare one: {case.label}", "µs per sample")
    table.add("bare loop", scaled(taken["bare"], 1e6))
    table.add("worker: telemetry, latency, hash, output", scaled(taken["worker"], 1e6))
    ratio = Spread.of(ratios(taken["worker"], taken["bare"]))
    pairs = zip(taken["worker"], taken["bare"], strict=True)
    extra = Spread.of([(a - b) * 1e6 for a, b in pairs])
    slow = min(taken["bare"]) * 1e6 >= SLOW_US
    table.note(
        f"ratio within a pair: p50 {ratio.p50:.3f} ({ratio.low:.3f}–{ratio.high:.3f})"
        + (f", aim {AIM}" if slow else f"; no aim below {SLOW_US:g} µs")
    )
    table.note(f"cost per sample: p50 {extra.p50:.1f} µs ({extra.low:.1f}–{extra.high:.1f})")
    seen = result.telemetry
    table.note(f"{samples} samples a block, {_size(result):,} bytes of output each")
    table.note(f"telemetry: {seen.samples} looks at {len(seen.start)} sensors a block")
    return table


def _size(result: wire.JobResult) -> int:
    return sum(o.blob.size for o in result.outputs) // result.outputs[0].shape[0]


def _as_taken(case: Case) -> Array:
    """Floats as they are; quantised to what the model's integer input says otherwise."""
    details = _interpreter(case).get_input_details()[0]
    if details["dtype"] == np.float32:
        return case.x
    scale, zero = details["quantization"]
    limits = np.iinfo(details["dtype"])
    codes = np.rint(case.x / scale) + zero
    taken: Array = np.clip(codes, limits.min, limits.max).astype(details["dtype"])
    return taken


def _interpreter(case: Case) -> Any:
    from ai_edge_litert import interpreter as lite

    resolver = lite.OpResolverType.AUTO
    if case.spec.kernels == "reference":
        resolver = lite.OpResolverType.BUILTIN_REF
    found = lite.Interpreter(
        model_path=str(case.model), num_threads=1, experimental_op_resolver_type=resolver
    )
    found.allocate_tensors()
    return found


def _bare(case: Case) -> Callable[[], Runner]:
    """Makes fresh sessions: the least code that runs one sample and reads its outputs."""
    if case.model.suffix == ".onnx":
        return lambda: _bare_ort(case.model)
    return lambda: _bare_lite(_interpreter(case))


def _bare_ort(model: Path) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda sample: session.run(None, {name: sample})


def _bare_lite(found: Any) -> Runner:
    entrance = found.get_input_details()[0]["index"]
    exits = [detail["index"] for detail in found.get_output_details()]

    def invoke(sample: Array) -> object:
        found.set_tensor(entrance, sample)
        found.invoke()
        return [found.get_tensor(index) for index in exits]

    return invoke


def _timed(runner: Runner, x: Array) -> float:
    """Seconds per sample, warm."""
    for i in range(WARMUP):
        runner(x[i : i + 1])
    begin = time.perf_counter()
    for i in range(len(x)):
        runner(x[i : i + 1])
    return (time.perf_counter() - begin) / len(x)


def _job(case: Case, x: Array, folder: Path) -> wire.Job:
    """The case as a coordinator would send it, its files in the cache under ``folder``."""
    inputs = folder / "x.npy"
    np.save(inputs, x)
    name = "x"
    if case.model.suffix == ".onnx":
        import onnx

        name = onnx.load(str(case.model), load_external_data=False).graph.input[0].name
    else:
        name = _interpreter(case).get_input_details()[0]["name"]
    tensor = wire.InputTensor(name, _keep(inputs, folder), str(x.dtype), list(x.shape))
    return wire.Job(
        attempt="bench",
        model=_keep(case.model, folder),
        model_format=case.model.suffix.lstrip("."),
        inputs=[tensor],
        runtime=case.spec,
        samples=len(x),
        warmup=WARMUP,
        telemetry_hz=HZ,
    )


def _keep(path: Path, folder: Path) -> wire.Blob:
    sha256 = sha256_file(str(path))
    place = folder / "cache" / sha256[:2] / sha256
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(path.read_bytes())
    return wire.Blob(sha256, path.stat().st_size)
