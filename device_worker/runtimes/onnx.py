"""ONNX Runtime.

Its provider map says CPU for every CPU kernel, so the optimised plan is hashed: plans differ by
instruction set, and with them the integers that come out.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from device_worker import shortage
from device_worker.arrays import Array
from device_worker.errors import WorkerError, one_line, out_of_memory, storage
from device_worker.runtimes import Interface, TensorInfo, engines, missing, unsupported
from device_worker.runtimes.plan import Plan, read_plan
from device_worker.runtimes.providers import CPU, assigned, chain, fallbacks, profiled
from device_worker.runtimes.words import explained
from device_worker.scratch import scratch
from device_worker.wire import Backend, RuntimeSpec

NAME = "onnxruntime"
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
_DEVICE_WORDS = ("CUDA failure", "CUDA error", "CUDNN failure", "CUBLAS failure", "enqueue failed")
_COMPILED = "compiled nodes"
"""Part of what ONNX Runtime says when a plan cannot be saved since a provider compiled it."""
_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")

_DENORMALS = "session.set_denormal_as_zero"
_settled: Dict[str, str] = {}
"""Process-wide entries: the first session's value holds for all later ones, silently."""

_plans: Dict[Tuple[str, str], Tuple[Optional[Plan], Dict[str, int]]] = {}
"""(model path, options) -> (plan, provider -> operators): cached files never change."""


class OnnxRuntime:
    """One session: ``threads`` intra-op threads, one inter-op thread."""

    def __init__(self, path: str, spec: RuntimeSpec) -> None:
        if spec.kernels != "default":
            raise unsupported(NAME, "kernels %r" % spec.kernels)
        try:
            import onnxruntime
        except Exception as error:
            raise missing(NAME, "onnxruntime", error) from error
        _settle(spec)
        self._ort = onnxruntime
        self._spec = spec
        self.notes: List[str] = []
        offered = onnxruntime.get_available_providers()
        if spec.providers[0] not in offered:
            raise unsupported(NAME, "%s (offered: %s)" % (spec.providers[0], ", ".join(offered)))
        for name in spec.provider_options:
            if name not in spec.providers:
                raise unsupported(NAME, "options of %s, which is not asked for" % name)
        self._path = path
        self._chain = chain(spec, offered, path, onnxruntime.__version__)
        self._build_ns: Optional[int] = None
        self._load()
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

    def reset(self) -> None:
        """Nothing to do: ONNX has no variables, and a session keeps nothing between runs."""

    def describe(self) -> Interface:
        return self._interface

    def backend(self) -> Backend:
        plan, nodes = self._plan()
        named = self._chain.named
        lines = fallbacks(named, self._session.get_providers(), nodes)
        return Backend(
            planned=", ".join(named),
            nodes=dict(nodes),
            fallbacks=lines,
            plan_sha256=plan.sha256 if plan else None,
            engines=self._engines(),
            build_ns=self._build_ns,
            operators=dict(plan.operators) if plan else {},
        )

    def version(self) -> Dict[str, Any]:
        build = getattr(self._ort, "get_build_info", None)
        return {"version": self._ort.__version__, "build_info": build() if build else None}

    def graph(self) -> Optional[bytes]:
        with storage("saving the optimised graph"), _saved() as path:
            options = self._options()
            options.optimized_model_filepath = path
            try:
                self._open(options)
            except Exception as error:
                if _COMPILED in str(error):
                    return None
                raise self._blame(error, "E-MODEL-LOAD") from error
            with open(path, "rb") as file:
                return file.read()

    def close(self) -> None:
        del self._session

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._spec.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not self._spec.optimise:
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        for key, value in self._spec.session.items():
            options.add_session_config_entry(key, value)
        return options

    def _open(self, options: Any) -> Any:
        shortage.must_have_threads(self._spec.threads)
        return self._ort.InferenceSession(self._path, options, providers=self._chain.given)

    def _load(self) -> None:
        """Open the measured session. If that built engines, open it again, now from the cache."""
        before = self._engines()
        self._time()
        if self._chain.engines and engines.built(before, self._engines()):
            self._build_ns = self.load_ns
            del self._session
            self._time()

    def _time(self) -> None:
        begin = time.perf_counter_ns()
        try:
            self._session = self._open(self._options())
            if self._chain.engines:
                # Engines of a model with free axes are built when their length is first seen.
                self._session.run(None, _zeros(self._session))
        except Exception as error:
            raise self._blame(error, "E-MODEL-LOAD") from error
        self.load_ns = time.perf_counter_ns() - begin

    def _engines(self) -> Dict[str, str]:
        if not self._chain.engines:
            return {}
        with storage("hashing compiled engines"):
            os.makedirs(self._chain.engines, exist_ok=True)
            return engines.hashes(self._chain.engines)

    def _plan(self) -> Tuple[Optional[Plan], Dict[str, int]]:
        spec = self._spec
        key = (
            self._path,
            repr((self._chain.given, spec.threads, spec.optimise, sorted(spec.session.items()))),
        )
        if key not in _plans:
            try:
                _plans[key] = self._read_plan()
            except Exception as error:
                # The model did load: that its plan cannot be saved is not its fault.
                need = shortage.Need(spec.threads, os.path.getsize(self._path))
                found = shortage.of(error) or shortage.now(need)
                if found is not None:
                    raise found from error
                what = "the optimised plan cannot be read: %s" % one_line(str(error))
                raise WorkerError("infra_error", "E-PLAN", what) from error
        return _plans[key]

    def _read_plan(self) -> Tuple[Optional[Plan], Dict[str, int]]:
        """Save what the optimiser makes of the model, from a session of its own.

        The measured session stays as it would be in production: saving keeps constants alive. A
        plan of which a provider compiled a part cannot be saved: it has no hash, its engines do.
        """
        with _saved() as saved:
            folder = os.path.dirname(saved)
            options = self._options()
            options.optimized_model_filepath = saved
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            try:
                session = self._open(options)
            except Exception as error:
                if _COMPILED not in str(error):
                    raise
                options.optimized_model_filepath = ""
                session = self._open(options)
                return None, assigned(session) or self._profile(folder)
            plan = read_plan(saved)
            if session.get_providers() == [CPU]:
                return plan, {CPU: sum(plan.operators.values())}
            return plan, assigned(session) or self._profile(folder)

    def _profile(self, folder: str) -> Dict[str, int]:
        """Provider -> operators, seen while one sample of zeros is run."""
        options = self._options()
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        session = self._open(options)
        session.run(None, _zeros(session))
        with open(session.end_profiling(), encoding="utf-8") as file:
            return profiled(file.read())

    def _blame(self, error: Exception, code: str) -> WorkerError:
        if isinstance(error, WorkerError):
            return error
        text, fix = explained(str(error))
        if isinstance(error, MemoryError) or any(mark in text for mark in _OUT_OF_MEMORY):
            return out_of_memory("%s ran out of memory: %s" % (NAME, text))
        words = code == "E-MODEL-RUN" and any(mark in text for mark in _DEVICE_WORDS)
        if type(error).__name__ in _DEVICE_FAULTS or words:
            return WorkerError("infra_error", "E-ACCELERATOR", text, "check the device")
        return WorkerError("model_error", code, text, fix)


@contextlib.contextmanager
def _saved() -> Iterator[str]:
    """Where a plan may be saved; it goes afterwards."""
    with scratch("plan") as folder:
        yield os.path.join(folder, "plan.onnx")


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


def _zeros(session: Any) -> Dict[str, Array]:
    """One sample of zeros for each input; free axes get length 1."""
    found = {}
    for info in (_info(item) for item in session.get_inputs()):
        found[info.name] = np.zeros([axis or 1 for axis in info.shape], info.dtype)
    return found


def _info(item: Any) -> TensorInfo:
    shape = [axis if isinstance(axis, int) and axis > 0 else None for axis in item.shape]
    return TensorInfo(item.name, _TYPES.get(item.type, item.type), shape)
