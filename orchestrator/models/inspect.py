"""What a model file takes and gives, read in a limited subprocess.

A model may be truncated or hostile; the coordinator must survive reading it. The child applies
limits to itself before it opens the file, and answers with one JSON object.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError

EDGETPU_OP = "edgetpu-custom-op"
"""The operator that holds everything the Edge TPU compiler took over."""

TIMEOUT = 120.0
"""Seconds of wall time for one file; the child's CPU limit is below it."""


@dataclass(frozen=True)
class TensorInfo:
    """One input or output. ``shape`` includes the batch axis, -1 is dynamic.

    ``scale``/``zero_point``/``code_min``/``code_max``: per-tensor quantisation, of an integer
    tensor its own, of a float output that of the integers it is dequantised from; else None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None
    code_min: int | None = None
    code_max: int | None = None

    def elements(self) -> int | None:
        """Elements of one sample, None where dynamic. A first axis of 1 or -1 is the batch."""
        if -1 in self.shape[1:]:
            return None
        return math.prod(abs(n) for n in self.shape)


@dataclass(frozen=True)
class ModelInfo:
    """What can be read from a model file without running it.

    ``operators``: kind → count, all subgraphs. ``quantised``: tensors that carry a scale (TFLite)
    or nodes that quantise (ONNX); 0 for a model computed in float throughout. ``edgetpu_bytes``: of
    the programs that the Edge TPU compiler put into the file. ``saturable``: products of 8-bit
    activations and int8 weights whose pair sums can leave int16 on a CPU that adds pairs there (x86
    without VNNI); known of ONNX files only. ``families``: of the integer convolutions and matrix
    products of a TFLite file, by what a runtime may have kernels of their own for (operator, type,
    granularity, size; the names of the probe pack's families) → (count, how many of them are
    clamped at zero by a fused activation). ``signature``: of a TFLite file, what it calls its main
    graph, which is the one that is run; ``unmeasured``: its signatures of other graphs.
    """

    path: str
    format: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: Mapping[str, int]
    quantised: int
    edgetpu_bytes: int = 0
    saturable: int = 0
    families: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    signature: str | None = None
    unmeasured: tuple[str, ...] = ()

    @property
    def compiled(self) -> bool:
        """Whether it was compiled for an Edge TPU, and so runs only with its delegate."""
        return EDGETPU_OP in self.operators


def inspect(path: Path) -> ModelInfo:
    """Read a .onnx or .tflite file.

    Raises InputError E-MODEL-UNREADABLE (missing, truncated, garbage, too large to read within
    the limits) or E-MODEL-EXTERNAL-DATA (an ONNX model in several files).
    """
    path = path.absolute()
    return _model(path, ask("orchestrator.models.inspect_child", path))


def ask(module: str, *files: Path) -> Any:
    """What ``module`` answers of ``files``, run as a child that limits itself before it reads them.

    Raises InputError as the child says, or E-MODEL-UNREADABLE where it did not live to say it.
    """
    paths = [str(file.absolute()) for file in files]
    where = " and ".join(paths)
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", module, *paths],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _unreadable(where, f"reading it took longer than {TIMEOUT:.0f} s") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise _unreadable(where, f"reading it ended with {name}")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        tail = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise _unreadable(where, f"reading it failed: {tail[:200]}") from None
    if "error" in answer:
        named = answer.get("where") or where
        raise InputError(answer["error"], answer["what"], where=named, fix=answer.get("fix"))
    return answer


def code_range(dtype: str) -> tuple[int, int] | None:
    """Lowest and highest code of an integer type of any width, which NumPy need not have."""
    named = re.fullmatch(r"(u?)int([0-9]{1,2})", dtype)
    if named is None:
        return None
    bits = int(named[2])
    return (0, (1 << bits) - 1) if named[1] else (-(1 << bits - 1), (1 << bits - 1) - 1)


def single_input(info: ModelInfo) -> TensorInfo:
    """The only input. Raises InputError E-MODEL-INPUTS: several are not supported yet."""
    if len(info.inputs) != 1:
        names = ", ".join(t.name for t in info.inputs)
        raise InputError(
            "E-MODEL-INPUTS",
            f"{len(info.inputs)} inputs ({names}); models with exactly one are supported",
            where=info.path,
        )
    return info.inputs[0]


def check_parent(int8: ModelInfo, fp32: ModelInfo) -> None:
    """Raises InputError E-FP32-PARENT unless ``fp32`` can be the float parent of ``int8``.

    Same number of outputs, same elements per sample, float arithmetic and float outputs. An
    integer input that is no quantised tensor (token ids) must be one in both.
    """
    mine, theirs = single_input(int8), single_input(fp32)

    def wrong(what: str) -> InputError:
        return InputError(
            "E-FP32-PARENT",
            f"{what}, so it is not the FP32 parent of {int8.path}",
            where=fp32.path,
            fix="name the float model that this file was quantised from",
        )

    if fp32.quantised:
        raise wrong(f"{fp32.quantised} of its tensors or operators are quantised")
    if len(int8.outputs) != len(fp32.outputs):
        raise wrong(f"it has {len(fp32.outputs)} outputs, not {len(int8.outputs)}")
    pairs = [("input", mine, theirs)]
    pairs += [("output", a, b) for a, b in zip(int8.outputs, fp32.outputs, strict=True)]
    for kind, a, b in pairs:
        if None not in (a.elements(), b.elements()) and a.elements() != b.elements():
            raise wrong(
                f"its {kind} {b.name!r} has {b.elements()} elements a sample, not {a.elements()}"
            )
        plain_integers = kind == "input" and a.dtype == b.dtype and a.scale is None
        if not b.dtype.startswith("float") and not plain_integers:
            raise wrong(f"its {kind} {b.name!r} is {b.dtype}, not float")


def check_compiled(compiled: ModelInfo, source: ModelInfo) -> None:
    """Raises InputError E-MODEL-COMPILED unless ``compiled`` takes and gives what ``source`` does.

    Names may differ: compilers rename. Shapes, types, scales and zero points may not.
    """
    pairs = (
        ("input", compiled.inputs, source.inputs),
        ("output", compiled.outputs, source.outputs),
    )
    for kind, mine, theirs in pairs:
        if len(mine) != len(theirs):
            raise _not_compiled_from(compiled, source, f"{len(mine)} {kind}s, not {len(theirs)}")
        for a, b in zip(mine, theirs, strict=True):
            if _form(a) != _form(b):
                what = f"{kind} {a.name!r} is {_described(a)}, not {_described(b)}"
                raise _not_compiled_from(compiled, source, what)


def _form(t: TensorInfo) -> tuple[object, ...]:
    return t.dtype, t.shape, t.scale, t.zero_point


def _described(t: TensorInfo) -> str:
    shape = "x".join("?" if n == -1 else str(n) for n in t.shape)
    scale = "" if t.scale is None else f" scale {t.scale:.9g} zero point {t.zero_point}"
    return f"{t.dtype} [{shape}]{scale}"


def _not_compiled_from(compiled: ModelInfo, source: ModelInfo, what: str) -> InputError:
    return InputError(
        "E-MODEL-COMPILED",
        f"{what}, so it was not compiled from {source.path}",
        where=compiled.path,
        fix="name the file that it was compiled from",
    )


def _unreadable(where: str, what: str) -> InputError:
    return InputError("E-MODEL-UNREADABLE", what, where=where)


def _model(path: Path, answer: Mapping[str, Any]) -> ModelInfo:
    def tensors(key: str) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(**t | {"shape": tuple(t["shape"])}) for t in answer[key])

    return ModelInfo(
        str(path),
        answer["format"],
        tensors("inputs"),
        tensors("outputs"),
        answer["operators"],
        answer["quantised"],
        answer.get("edgetpu_bytes", 0),
        answer.get("saturable", 0),
        {family: (n, clamped) for family, (n, clamped) in answer.get("families", {}).items()},
        answer.get("signature"),
        tuple(answer.get("unmeasured", ())),
    )
