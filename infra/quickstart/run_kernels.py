"""Run one model file over one image file with one kernel set and save what came out, untouched.

`measure.py` starts this under every Python and CPU model it compares, so it imports nothing but
NumPy and the one runtime asked for.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np

TFLITE_RESOLVERS = {
    "default": "AUTO",
    "no_delegate": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}


def run_onnx(model: Path, x: Any, threads: int = 1) -> Any:
    """ONNX Runtime on the CPU, one image at a time; the output tensor of each, stacked."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    images = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def tflite_module(runtime: str) -> Any:
    """The interpreter module of the runtime asked for."""
    if runtime == "litert":
        from ai_edge_litert import interpreter
    else:
        from tflite_runtime import interpreter
    return interpreter


def quantised(x: Any, detail: dict[str, Any]) -> Any:
    """Images as the model's input type wants them; rounding is to even, as NumPy rounds."""
    if detail["dtype"] == np.float32:
        return x
    scale, zero_point = detail["quantization"]
    info = np.iinfo(detail["dtype"])
    codes = np.rint(x.astype(np.float64) / scale) + zero_point
    return np.clip(codes, info.min, info.max).astype(detail["dtype"])


def run_tflite(
    model: Path, x: Any, runtime: str = "litert", kernels: str = "default", threads: int = 1
) -> Any:
    """LiteRT or tflite-runtime with the named kernels, one image at a time, outputs stacked."""
    module = tflite_module(runtime)
    interpreter = module.Interpreter(
        model_path=str(model),
        num_threads=threads,
        experimental_op_resolver_type=module.OpResolverType[TFLITE_RESOLVERS[kernels]],
    )
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    outputs = []
    for image in quantised(x, source):
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"]).copy())
    return np.concatenate(outputs)


def main() -> None:
    """Parse, run, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=("onnxruntime", "litert", "tflite"), required=True)
    parser.add_argument("--kernels", choices=sorted(TFLITE_RESOLVERS), default="default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("models", type=Path, nargs="+")
    args = parser.parse_args()
    x = np.load(args.data)["x"]
    for model in args.models:
        if args.runtime == "onnxruntime":
            output = run_onnx(model, x, args.threads)
        else:
            output = run_tflite(model, x, args.runtime, args.kernels, args.threads)
        np.save(args.out / f"{model.name}.npy", output)


if __name__ == "__main__":
    main()
