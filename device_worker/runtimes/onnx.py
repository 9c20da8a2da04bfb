"""ONNX Runtime. Its provider map says CPU for every CPU kernel, so the optimised plan is hashed:

plans differ by instruction set, and with them the integers that come out.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from device_worker.arrays import Array
from device_worker.errors import WorkerError, one_line
from device_worker.runtimes import (
    Interface,
    TensorInfo,
    missing,
    out_of_memory,
    unsupported,
)
from device_worker.runtimes.plan import read_plan
from device_worker.wire import Backend, RuntimeSpec

NAME = "onnxruntime"
_CPU = "CPUExecutionProvider"
_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{
        "tensor(%s)" % name: name
        for name in (
            *("int8", "int16", "int32", "int64"),
            *("uint8", "uint16", "uint32", "uint64"),
        )
    },
}
_DEVICE_FAULTS = ("EPFail", "DeviceReset", "EngineError")
_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")

_DENORMALS = "session.set_denormal_as_zero"
_settled: Dict[str, str] = {}
"""Process-wide entries: the first session's value holds for all later ones, silently."""

_plans: Dict[Tuple[str, str], Tuple[str, Dict[str, int]]] = {}
"""(model path, options) -> (plan hash, provider -> operators): cached files never change."""


class OnnxRuntime:
    """One session: ``threads`` intra-op threads, one inter-op thread."""

    def __init__(self, path: str, spec: RuntimeSpec) -> None:
        if spec.kernels != "default":
            raise unsupported(NAME, "kernels %r" % spec.kernels)
        try:
            import onnxruntime
        except ImportError as error:
            raise missing(NAME, error) from error
        _settle(spec)
        self._ort = onnxruntime
        self._spec = spec
        offered = onnxruntime.get_available_providers()
        if spec.providers[0] not in offered:
            raise unsupported(NAME, "%s (offered: %s)" % (spec.providers[0], ", ".join(offered)))
        self._path = path
        begin = time.perf_counter_ns()
        try:
            self._session = self._open(self._options())
        except Exception as error:
            raise self._blame(error, "E-MODEL-LOAD") from error
        self.load_ns = time.perf_counter_ns() - begin
        self._interface = Interface(
            [_info(item) for item in self._session.get_inputs()],
            [_info(item) for item in self._session.get_outputs()],
        )
        self._input_names = [item.name for item in self._interface.inputs]
        self._output_names = [item.name for item in self._interface.outputs]

    def run(self, inputs: Sequence[Array]) -> List[Array]:
        try:
            outputs = self._session.run(self._output_names, dict(zip(self._input_names, inputs)))
        except Exception as error:
            raise self._blame(error, "E-MODEL-RUN") from error
        if not all(isinstance(output, np.ndarray) for output in outputs):
            raise WorkerError("model_error", "E-MODEL-OUTPUT", "an output is not a tensor")
        return outputs  # type: ignore[no-any-return]  # checked just above

    def describe(self) -> Interface:
        return self._interface

    def backend(self) -> Backend:
        asked, given = self._spec.providers[0], self._session.get_providers()
        plan_sha256, nodes = self._plan()
        fallbacks = []
        if asked not in given:
            fallbacks.append("asked for %s, session has %s" % (asked, ", ".join(given)))
        elif not nodes.get(asked):
            fallbacks.append("asked for %s, it was given no operator" % asked)
        elif asked != _CPU and nodes.get(_CPU):
            fallbacks.append("asked for %s, %d operators run on %s" % (asked, nodes[_CPU], _CPU))
        return Backend(asked, dict(nodes), fallbacks, plan_sha256)

    def version(self) -> Dict[str, Any]:
        build = getattr(self._ort, "get_build_info", None)
        return {"version": self._ort.__version__, "build_info": build() if build else None}

    def close(self) -> None:
        del self._session

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._spec.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for key, value in self._spec.session.items():
            options.add_session_config_entry(key, value)
        return options

    def _open(self, options: Any) -> Any:
        providers = list(dict.fromkeys([*self._spec.providers, _CPU]))
        return self._ort.InferenceSession(self._path, options, providers=providers)

    def _plan(self) -> Tuple[str, Dict[str, int]]:
        spec = self._spec
        key = (self._path, repr((spec.providers, spec.threads, sorted(spec.session.items()))))
        if key not in _plans:
            try:
                _plans[key] = self._read_plan()
            except Exception as error:
                # The model did load: that its plan cannot be saved is not its fault.
                what = "the optimised plan cannot be read: %s" % one_line(str(error))
                raise WorkerError("infra_error", "E-PLAN", what) from error
        return _plans[key]

    def _read_plan(self) -> Tuple[str, Dict[str, int]]:
        """Save what the optimiser makes of the model, from a session of its own.

        The measured session stays as it would be in production: saving keeps constants alive.
        """
        with tempfile.TemporaryDirectory(prefix="assay-plan-") as folder:
            saved = os.path.join(folder, "plan.onnx")
            options = self._options()
            options.optimized_model_filepath = saved
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            session = self._open(options)
            plan = read_plan(saved)
            if session.get_providers() == [_CPU]:
                return plan.sha256, {_CPU: sum(plan.operators.values())}
            return plan.sha256, _assigned(session)

    def _blame(self, error: Exception, code: str) -> WorkerError:
        text = one_line(str(error))
        if isinstance(error, MemoryError) or any(mark in text for mark in _OUT_OF_MEMORY):
            return out_of_memory(NAME, text)
        if type(error).__name__ in _DEVICE_FAULTS:
            return WorkerError("infra_error", "E-ACCELERATOR", text, "check the device")
        return WorkerError("model_error", code, text)


def _settle(spec: RuntimeSpec) -> None:
    """Refuse a job that this process would run with another job's floating-point mode."""
    wanted = spec.session.get(_DENORMALS, "0")
    if _settled.setdefault(_DENORMALS, wanted) != wanted:
        raise WorkerError(
            "infra_error",
            "E-RUNTIME-PROCESS",
            "%s is %s for this whole process, the job wants %s"
            % (_DENORMALS, _settled[_DENORMALS], wanted),
            "start another worker process for it",
        )


def _assigned(session: Any) -> Dict[str, int]:
    """Provider -> operators of the unoptimised graph, where this release can tell."""
    nodes: Dict[str, int] = {}
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    for part in ask() if ask else ():
        nodes[part.ep_name] = nodes.get(part.ep_name, 0) + len(part.get_nodes())
    return nodes


def _info(item: Any) -> TensorInfo:
    shape = [axis if isinstance(axis, int) and axis > 0 else None for axis in item.shape]
    return TensorInfo(item.name, _TYPES.get(item.type, item.type), shape)
