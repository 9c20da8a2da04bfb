"""Inference runtimes behind one small Protocol, all listed in ``ADAPTERS``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Protocol, Sequence, Tuple

from device_worker import shortage
from device_worker.errors import WorkerError, told
from device_worker.wire import Backend, RuntimeSpec

if TYPE_CHECKING:
    from device_worker.arrays import Array


_AFFINITIES = "session.intra_op_thread_affinities"


@dataclass(frozen=True)
class TensorInfo:
    """``shape``: None marks an axis of free length. ``scale``/``zero_point``: per tensor only."""

    name: str
    dtype: str
    shape: List[Optional[int]]
    scale: Optional[float] = None
    zero_point: Optional[int] = None


@dataclass(frozen=True)
class Interface:
    inputs: List[TensorInfo]
    outputs: List[TensorInfo]


class Runtime(Protocol):
    """A loaded model. ``run`` returns exactly the bytes the runtime put out.

    Every method raises WorkerError: model_error when the model cannot be run, infra_error when
    the device failed (memory), not_available when the runtime does not offer what was asked.
    ``load_ns`` is the time to load the model, without importing the runtime's library; ``notes``
    what a reader of its timing should know.
    """

    load_ns: int
    notes: List[str]

    def run(self, inputs: Sequence[Array]) -> List[Array]:
        """One inference; C-contiguous arrays in ``describe().inputs`` order, outputs likewise."""

    def reset(self) -> None:
        """Forget what earlier inferences left in the model's variables, unless told to keep it."""

    def describe(self) -> Interface: ...

    def backend(self) -> Backend: ...

    def version(self) -> Dict[str, Any]:
        """Facts of the loaded library that its package metadata does not hold."""

    def graph(self) -> Optional[bytes]:
        """What the runtime's optimiser makes of the model, None where it makes no file of it."""

    def close(self) -> None: ...


Opener = Callable[[str, RuntimeSpec], Runtime]


def _onnxruntime(path: str, spec: RuntimeSpec) -> Runtime:
    from device_worker.runtimes import onnx

    return onnx.OnnxRuntime(path, spec)


def _litert(path: str, spec: RuntimeSpec) -> Runtime:
    from device_worker.runtimes import tflite

    return tflite.TfliteRuntime(path, spec, tflite.LITERT)


def _tflite_runtime(path: str, spec: RuntimeSpec) -> Runtime:
    from device_worker.runtimes import tflite

    return tflite.TfliteRuntime(path, spec, tflite.TFLITE_RUNTIME)


ADAPTERS: Dict[str, Opener] = {
    "onnxruntime": _onnxruntime,
    "litert": _litert,
    "tflite-runtime": _tflite_runtime,
}

FORMATS: Dict[str, str] = {
    "onnxruntime": "onnx",
    "litert": "tflite",
    "tflite-runtime": "tflite",
}


def open_model(path: str, model_format: str, spec: RuntimeSpec) -> Runtime:
    """Load the model at ``path`` in the runtime that ``spec`` names.

    Raises WorkerError not_available (E-RUNTIME-UNKNOWN, E-RUNTIME-FORMAT, E-RUNTIME-MISSING,
    E-RUNTIME-BROKEN, E-RUNTIME-OPTION) or model_error E-MODEL-LOAD.
    """
    opener = ADAPTERS.get(spec.runtime)
    if opener is None:
        raise WorkerError(
            "not_available", "E-RUNTIME-UNKNOWN", "the worker has no runtime %r" % spec.runtime
        )
    if FORMATS.get(spec.runtime, model_format) != model_format:
        raise WorkerError(
            "not_available",
            "E-RUNTIME-FORMAT",
            "%s does not run %s files" % (spec.runtime, model_format),
            "pair the model with a runtime of its format",
        )
    return opener(path, spec)


def missing(runtime: str, module: str, error: BaseException) -> WorkerError:
    """Why ``module`` cannot be imported: not installed, short of something, or broken."""
    if isinstance(error, ModuleNotFoundError):
        code, what = "E-RUNTIME-MISSING", "%s is not installed: %s" % (runtime, error)
    else:
        short = shortage.importing(module, error)
        if short is not None:
            return short
        code, what = "E-RUNTIME-BROKEN", "%s does not work here: %s" % (runtime, told(error))
    return WorkerError("not_available", code, what, "install %s on the device" % runtime)


def misfit(what: str) -> WorkerError:
    """The job gives another input than the model takes: the farm's trouble, whatever the model."""
    fix = "one sample with a leading axis of 1 must fit the model's input"
    return WorkerError("infra_error", "E-INPUT-MISFIT", what, fix)


def unsupported(runtime: str, option: str) -> WorkerError:
    """The runtime has no such option: running without it would measure something else."""
    return WorkerError(
        "not_available", "E-RUNTIME-OPTION", "%s does not offer %s" % (runtime, option)
    )


def bound_to(spec: RuntimeSpec) -> Tuple[int, ...]:
    """The processors that ``spec`` binds threads to.

    ONNX Runtime counts them from 1, lists a thread's with commas or as a range, and divides threads
    by semicolons. What is not of that form is left for it to refuse.
    """
    found = re.findall(r"(\d{1,4})(?:-(\d{1,4}))?", spec.session.get(_AFFINITIES, ""))
    return tuple(n - 1 for low, high in found for n in range(int(low), int(high or low) + 1))
