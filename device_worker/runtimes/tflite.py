"""TensorFlow Lite through LiteRT and through tflite-runtime: one API, two packages."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np

from device_worker import shortage
from device_worker.arrays import Array
from device_worker.errors import WorkerError, one_line, out_of_memory, short
from device_worker.runtimes import (
    Interface,
    TensorInfo,
    delegates,
    misfit,
    missing,
    partition,
    unsupported,
)
from device_worker.runtimes.probe import crash_signal
from device_worker.wire import Backend, Delegate, RuntimeSpec

XNNPACK, BUILTIN, REFERENCE = "XNNPACK", "builtin", "reference"
_RESOLVERS = {
    "default": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}
_RENEWED = "reset: a new interpreter for each sample, so every latency is a first inference's"
_STOPPED = ("SIGXCPU", "SIGXFSZ", "SIGTERM", "SIGHUP", "SIGINT")
"""Signals that a limit or somebody else sends; no model does."""
_CPU_TROUBLE = ("cpuinfo", "xnnpack")


@dataclass(frozen=True)
class Package:
    """``quantised``: whether its default kernels hand int8/uint8 operators to XNNPACK.

    ``verifies``: whether it checks a file before it follows the offsets in it.
    """

    name: str
    module: str
    quantised: bool
    verifies: bool


LITERT = Package("litert", "ai_edge_litert.interpreter", quantised=True, verifies=True)
TFLITE_RUNTIME = Package(
    "tflite-runtime", "tflite_runtime.interpreter", quantised=False, verifies=False
)

_survived: Set[Tuple[str, str, str]] = set()
"""(package, kernels, model path) that were loaded and run without a crash in this process."""
_proven: Set[Tuple[str, str, str]] = set()
"""(package, delegate's sha256, its options) that have run a model without a crash.

Tried but once: for a second process at the same accelerator while this one holds it would get none.
"""


class TfliteRuntime:
    """One interpreter: ``threads`` threads, the kernels and the delegate that the spec names."""

    _interpreter: Any

    def __init__(self, path: str, spec: RuntimeSpec, package: Package) -> None:
        self._package, self._spec = package, spec
        self._library: Optional[delegates.Library] = None
        self._shapes: Optional[List[List[int]]] = None
        if spec.session:
            raise unsupported(package.name, "session entry %r" % next(iter(spec.session)))
        if spec.providers != RuntimeSpec(package.name).providers:
            raise unsupported(package.name, "providers %s" % ", ".join(spec.providers))
        with captured_stderr() as stderr:
            self._load(path)
        self._trouble = [
            one_line(line)
            for line in stderr
            if any(mark in line.lower() for mark in _CPU_TROUBLE) and "INFO:" not in line
        ]
        self._inputs = self._interpreter.get_input_details()
        self._free = any(-1 in item["shape_signature"] for item in self._inputs)
        self._outputs = self._interpreter.get_output_details()
        self._feed = [item["index"] for item in self._inputs]
        self._fetch = [item["index"] for item in self._outputs]
        operators = self._interpreter._get_ops_details()
        self._resources = any(item["op_name"] == "VAR_HANDLE" for item in operators)
        self.notes = [_RENEWED] if self._resources and spec.reset else []

    def run(self, inputs: Sequence[Array]) -> List[Array]:
        if self._free:
            self._resize([list(value.shape) for value in inputs])
        interpreter = self._interpreter
        try:
            for index, value in zip(self._feed, inputs):
                interpreter.set_tensor(index, value)
        except ValueError as error:
            raise misfit(one_line(str(error))) from error
        try:
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._fetch]
        except (ValueError, RuntimeError, MemoryError) as error:
            failed = delegates.failed_run(str(error), self._delegate)
            raise failed or self._blame(error, "E-MODEL-RUN") from error

    def _resize(self, shapes: List[List[int]]) -> None:
        """Give free axes the samples' lengths; a new interpreter, as if it had been loaded so."""
        if shapes == self._shapes:
            return
        try:
            self._interpreter = _interpreter(self._module, self._options, shapes)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise self._blame(error, "E-MODEL-RUN") from error
        self._shapes = shapes

    def reset(self) -> None:
        """Variable tensors back to zero; a new interpreter where variables are resources.

        No runtime resets those (VAR_HANDLE), and their first values are assigned once, at the
        first inference of an interpreter.
        """
        if not self._spec.reset:
            return
        try:
            if self._resources:
                self._interpreter = _interpreter(self._module, self._options, self._shapes)
            else:
                self._interpreter.reset_all_variables()
        except (ValueError, RuntimeError, MemoryError) as error:
            raise self._blame(error, "E-MODEL-RUN") from error

    def describe(self) -> Interface:
        return Interface(
            [_info(item) for item in self._inputs], [_info(item) for item in self._outputs]
        )

    def backend(self) -> Backend:
        operators = self._interpreter._get_ops_details()
        taken = partition.delegated(operators)
        plain = sum(1 for item in operators if not partition.is_delegate(item)) - len(taken)
        builtin = REFERENCE if self._spec.kernels == "reference" else BUILTIN
        name, theirs = self._delegate, 0
        if name is not None:
            kinds = [str(operators[position]["op_name"]) for position in taken]
            theirs = delegates.split(kinds, self._spec.kernels == "default")
        nodes = {name or "": theirs, XNNPACK: len(taken) - theirs, builtin: plain}
        fallbacks = self._fallbacks(operators, taken)
        if name is not None and not theirs:
            fallbacks.insert(0, "asked for %s, it was given no operator" % name)
        return Backend(
            name or self._spec.kernels,
            {backend: count for backend, count in nodes.items() if count},
            fallbacks,
        )

    def version(self) -> Dict[str, Any]:
        package = importlib.import_module(self._package.module.partition(".")[0])
        found = {"version": getattr(package, "__version__", None), "build_info": None}
        spec = self._spec.delegate
        if self._library is not None and spec is not None:
            found["delegate"] = delegates.facts(self._library, spec.options)
        return found

    def graph(self) -> Optional[bytes]:
        return None

    def close(self) -> None:
        del self._interpreter

    @property
    def _delegate(self) -> Optional[str]:
        return self._spec.delegate.name if self._spec.delegate else None

    def _load(self, path: str) -> None:
        try:
            module = importlib.import_module(self._package.module)
        except Exception as error:
            raise missing(self._package.name, self._package.module, error) from error
        resolver = _RESOLVERS.get(self._spec.kernels)
        kinds = getattr(module, "OpResolverType", None)
        if resolver is None or not hasattr(kinds, resolver):
            raise unsupported(self._package.name, "kernels %r" % self._spec.kernels)
        options = {
            "model_path": path,
            "num_threads": self._spec.threads,
            "experimental_op_resolver_type": getattr(kinds, resolver),
        }
        if not self._package.verifies:
            self._refuse_crash(module, options)
        if self._spec.delegate is not None:
            options["experimental_delegates"] = [self._accelerator(module, options)]
        self._module, self._options = module, options
        shortage.must_have_threads(self._spec.threads - 1)
        begin = time.perf_counter_ns()
        try:
            self._interpreter = _interpreter(module, options)
            self.load_ns = time.perf_counter_ns() - begin
        except (SystemError, ImportError) as error:
            # Extension and NumPy were built for different ABIs: never the model's fault.
            raise missing(self._package.name, self._package.module, error) from error
        except (ValueError, RuntimeError, MemoryError) as error:
            raise self._blame(error, "E-MODEL-LOAD") from error

    def _refuse_crash(self, module: Any, options: Dict[str, Any]) -> None:
        """Load and run the model in a child first: a damaged file would take the worker along."""
        key = (self._package.name, self._spec.kernels, options["model_path"])
        if key in _survived:
            return
        fault = crash_signal(lambda: _interpreter(module, options).invoke())
        if fault == "SIGKILL":
            raise out_of_memory("%s was killed while trying the model" % self._package.name)
        if fault in _STOPPED:
            raise short("%s was ended by %s while trying the model" % (self._package.name, fault))
        if fault == "SIGILL":
            what = "%s has instructions this processor lacks" % self._package.name
            raise WorkerError("not_available", "E-RUNTIME-BROKEN", what)
        if fault is not None:
            what = "%s crashes on the model (%s)" % (self._package.name, fault)
            raise WorkerError("model_error", "E-MODEL-LOAD", what, "check that the file is whole")
        _survived.add(key)

    def _accelerator(self, module: Any, options: Dict[str, Any]) -> Any:
        """The delegate, loaded; before its first use in this process, tried in a child."""
        spec = self._spec.delegate
        assert spec is not None
        self._library = library = delegates.checked(spec)
        key = (self._package.name, library.sha256, repr(sorted(spec.options.items())))

        def attempt() -> None:
            given = delegates.load(module, library, spec.options)
            _interpreter(module, {**options, "experimental_delegates": [given]}).invoke()

        if key not in _proven:
            delegates.prove(library, attempt)
            _proven.add(key)
        return delegates.load(module, library, spec.options)

    def _blame(self, error: Exception, code: str) -> WorkerError:
        text = one_line(str(error))
        if isinstance(error, MemoryError) or "bad_alloc" in text:
            return out_of_memory("%s ran out of memory: %s" % (self._package.name, text))
        refused = delegates.refused_load(str(error), self._delegate)
        return refused or WorkerError("model_error", code, text, _fix(text))

    def _fallbacks(self, operators: List[Dict[str, Any]], taken: Set[int]) -> List[str]:
        # What an accelerator left over, its compiler left over: no default says who takes that.
        if self._spec.kernels != "default" or (taken and self._delegate is not None):
            return []
        tensors = self._interpreter.get_tensor_details()
        kinds = {int(item["index"]): np.dtype(item["dtype"]).name for item in tensors}
        names = partition.left_out(operators, taken, kinds, self._fetch, self._package.quantised)
        if not names:
            return []
        evidence = "; ".join(self._trouble) or "no message from the runtime"
        beside = " beside others that it took" if taken else ""
        return ["XNNPACK not applied to %s%s: %s" % (", ".join(names), beside, evidence)]


def probe(spec: Delegate, runtime: str) -> Dict[str, Any]:
    """Load a delegate without a model, first in a child, and let go of it again: its facts.

    Raises WorkerError not_available E-RUNTIME-UNKNOWN, E-RUNTIME-MISSING, E-RUNTIME-BROKEN, and
    what ``delegates`` raises.
    """
    package = next((p for p in (LITERT, TFLITE_RUNTIME) if p.name == runtime), None)
    if package is None:
        what = "%r takes no TFLite delegate" % runtime
        raise WorkerError("not_available", "E-RUNTIME-UNKNOWN", what)
    try:
        module = importlib.import_module(package.module)
    except Exception as error:
        raise missing(package.name, package.module, error) from error
    library = delegates.checked(spec)
    delegates.prove(library, lambda: delegates.load(module, library, spec.options))
    with captured_stderr():
        delegates.load(module, library, spec.options)
    return delegates.facts(library, spec.options)


def _fix(text: str) -> str:
    """What helps where the runtime lacks an operator; nothing is known of other refusals."""
    if "unresolved custom op" in text:
        return "the runtime has no such operator: convert the model without it"
    if "Didn't find op for builtin opcode" in text:
        return "use a newer runtime, or convert the model for this one"
    return ""


def _interpreter(
    module: Any, options: Dict[str, Any], shapes: Optional[List[List[int]]] = None
) -> Any:
    """An interpreter ready to run one sample, of these ``shapes`` where axes are free."""
    interpreter = module.Interpreter(**options)
    for position, item in enumerate(interpreter.get_input_details()):
        signature = [int(axis) for axis in item["shape_signature"]]
        shape = (
            [1, *(int(axis) for axis in item["shape"][1:])] if shapes is None else shapes[position]
        )
        if -1 in signature and (shapes is not None or signature[0] == -1):
            interpreter.resize_tensor_input(item["index"], shape)
    interpreter.allocate_tensors()
    return interpreter


def _info(item: Dict[str, Any]) -> TensorInfo:
    signature = item.get("shape_signature", item["shape"])
    scale, zero_point = _per_tensor(item)
    return TensorInfo(
        item["name"],
        str(np.dtype(item["dtype"])),
        [int(axis) if axis >= 0 else None for axis in signature],
        scale,
        zero_point,
    )


def _per_tensor(item: Dict[str, Any]) -> Tuple[Optional[float], Optional[int]]:
    scale, zero_point = item["quantization"]
    if not scale or not math.isfinite(scale) or len(item["quantization_parameters"]["scales"]) > 1:
        return None, None
    return float(scale), int(zero_point)


@contextlib.contextmanager
def captured_stderr() -> Iterator[List[str]]:
    """Lines that anything in the process wrote to fd 2 meanwhile; passed on afterwards.

    The runtime reports a lost delegate nowhere else.
    """
    lines: List[str] = []
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read()
            lines.extend(text.decode("utf-8", "replace").splitlines())
            if text:
                os.write(2, text)
