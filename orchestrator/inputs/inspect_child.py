"""The child of `inspect`: limits itself, reads one model file, prints one JSON object."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.inputs.inspect import TensorInfo

MEMORY = 4 << 30
"""Bytes of address space: room for the runtime's libraries and a model of about 1 GiB."""
CPU_SECONDS = 60
MAX_ANSWER = 1 << 20


def limit() -> None:
    """Memory, CPU time, no core file, no file written."""
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def read(path: Path) -> dict[str, Any]:
    """Raises InputError, or whatever the parsers raise on a file that is none."""
    if not path.is_file():
        raise InputError("E-MODEL-UNREADABLE", "there is no such file")
    if path.suffix.lower() == ".onnx":
        from orchestrator.inputs.inspect_onnx import read_onnx

        return read_onnx(path)
    if path.suffix.lower() == ".tflite":
        return read_tflite(path)
    raise InputError("E-MODEL-UNREADABLE", "neither .onnx nor .tflite")


def read_tflite(path: Path) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # No delegate and no allocate_tensors: custom operators and newer versions can still be read,
    # and whether a runtime can run them is found out on the device.
    model = Interpreter(
        model_path=str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        num_threads=1,
    )
    tensors = {t["index"]: t for t in model.get_tensor_details()}
    operators = model._get_ops_details()
    return {
        "format": "tflite",
        "inputs": [asdict(_tensor(d)) for d in model.get_input_details()],
        "outputs": [asdict(_output(d, operators, tensors)) for d in model.get_output_details()],
        "operators": Counter(op["op_name"] for op in operators),
        "quantised": sum(len(t["quantization_parameters"]["scales"]) > 0 for t in tensors.values()),
    }


def _output(
    details: dict[str, Any], operators: list[dict[str, Any]], tensors: dict[int, dict[str, Any]]
) -> TensorInfo:
    """A float output's lattice is that of the tensor its DEQUANTIZE reads, moves aside."""
    info = _tensor(details)
    producer = {int(index): op for op in operators for index in op["outputs"]}
    op = producer.get(int(details["index"]))
    while op is not None and op["op_name"] in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"):
        op = producer.get(int(op["inputs"][0]))
    source = tensors.get(int(op["inputs"][0])) if op and op["op_name"] == "DEQUANTIZE" else None
    return info if source is None else _scaled(info, source)


def _tensor(details: dict[str, Any]) -> TensorInfo:
    import numpy as np

    signature = details.get("shape_signature")
    shape = details["shape"] if signature is None or not len(signature) else signature
    dtype = np.dtype(details["dtype"])
    return _scaled(TensorInfo(details["name"], dtype.name, tuple(int(n) for n in shape)), details)


def _scaled(info: TensorInfo, source: dict[str, Any]) -> TensorInfo:
    """``info`` with the per-tensor quantisation of ``source``, where that has one."""
    import numpy as np

    scale, zero_point = source["quantization"]  # (0.0, 0) where there is none
    dtype = np.dtype(source["dtype"])
    if not scale or dtype.kind not in "iu":
        return info
    bounds = np.iinfo(dtype)
    return replace(
        info,
        scale=float(scale),
        zero_point=int(zero_point),
        code_min=int(bounds.min),
        code_max=int(bounds.max),
    )


def main(path: str) -> int:
    # Runtimes print to stdout; only the answer may go there.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    limit()
    try:
        answer = read(Path(path))
        text = json.dumps(answer, allow_nan=False)
        if len(text) > MAX_ANSWER:
            raise InputError("E-MODEL-UNREADABLE", "describes itself in more than 1 MiB")
    except InputError as error:
        text = json.dumps({"error": error.id, "what": error.what, "mend": error.mend})
    except MemoryError:
        text = _unreadable(f"reading it needs more than {MEMORY >> 30} GiB of memory")
    # Parsers of hostile bytes raise anything; each of them means the same, and is passed on.
    except Exception as error:  # noqa: BLE001
        text = _unreadable(f"not a readable model: {type(error).__name__}: {str(error)[:300]}")
    answers.write(text)
    answers.close()
    return 0


def _unreadable(what: str) -> str:
    return json.dumps({"error": "E-MODEL-UNREADABLE", "what": what})


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
