"""Messages between coordinator and device worker: one JSON object a line, versioned.

Python 3.9 syntax, standard library only: this module is imported on both sides.

Coordinator -> worker (each has "op" and "id"; a reply carries the same "id"):
  ping {nonce}              -> pong {nonce}
  facts                     -> facts {environment}
  sensors {sources: [...]}  -> sensors {reading}          one look through Sources, see telemetry
  probe {runtime, delegate} -> probed {delegate}          loads a Delegate, says what it is
  have {sha256: [...]}      -> have {present: [...]}      every listed file is re-hashed first
  adopt {sha256, path}      -> adopted                    pushed file: hashed, moved into the cache
  run {job: Job}            -> progress* , result {result: JobResult}
  batch {batch: Batch}      -> progress* , result {result: BatchResult}    many small models
  fetch {attempt}           -> content {files}            small files of an attempt, path -> base64
  forget {attempt}          -> forgotten                  deletes the attempt's output files
  noop                      -> done
  bye                       -> bye, exit 0
Worker -> coordinator, unasked: hello (first line), heartbeat {counter}.
Any failure: error {kind: model_error|infra_error|not_available|stale, code: "E-...", what, mend}.
With E-LEASE-STALE, remembered {incarnation, generation, token, place}: the grant before, that the
device remembers; with E-LEASE-HELD, holder: the same farm's other name for the device.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Type, TypeVar

from device_worker.plain import WireError as WireError

PROTOCOL = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Blob:
    """A file in the content-addressed cache: sha256 hex and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class InputTensor:
    """One .npy file of shape [samples, ...]; a sample is fed with a leading axis of 1."""

    name: str
    blob: Blob
    dtype: str
    shape: List[int]


@dataclass(frozen=True)
class Source:
    """Something to look at on the device, and the built-in parser that understands it.

    Either ``paths`` (globs) or a ``command``; ``stream``: the command runs on, and its newest
    line is what it says. ``parser``: a name in ``device_worker.telemetry.parsers.PARSERS``.
    Looked at no more often than every ``every_s`` seconds; unreadable after ``timeout_s``.
    ``units``: glob of a sensor's name -> what its temperature is counted in (degrees, tenths,
    millidegrees), where the parser's text does not say; the first that fits counts.
    """

    parser: str
    paths: List[str] = field(default_factory=list)
    command: List[str] = field(default_factory=list)
    stream: bool = False
    every_s: float = 0.0
    timeout_s: float = 2.0
    units: Dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delegate:
    """A TFLite delegate: ``library`` is a path or soname on the device, given to load_delegate.

    ``sha256``: of that file, refused when it differs; None: not pinned.
    """

    name: str
    library: str
    options: Dict[str, str] = field(default_factory=dict)
    sha256: Optional[str] = None


@dataclass(frozen=True)
class RuntimeSpec:
    """How to run: ``runtime`` is onnxruntime, litert or tflite-runtime.

    ``kernels``: "default", "reference" (TFLite's BUILTIN_REF), "builtin" (no default delegate).
    ``providers``: ONNX Runtime execution providers, the wanted one first; the CPU always comes
    last. ``provider_options``: provider -> its options. ``session``: session config entries.
    ``optimise`` False: ONNX Runtime runs the graph as it is, for one that it has optimised before.
    ``reset`` False: TFLite variables keep what the sample before left in them.
    """

    runtime: str
    threads: int = 1
    kernels: str = "default"
    providers: List[str] = field(default_factory=lambda: ["CPUExecutionProvider"])
    provider_options: Dict[str, Dict[str, str]] = field(default_factory=dict)
    session: Dict[str, str] = field(default_factory=dict)
    delegate: Optional[Delegate] = None
    optimise: bool = True
    reset: bool = True


@dataclass(frozen=True)
class Soak:
    """Heat with the model itself to ``target_c``, at most ``heat_s``; then go on for ``hold_s``."""

    target_c: float
    hold_s: float
    heat_s: float


@dataclass(frozen=True)
class PowerMode:
    """A named power mode. ``apply``/``restore``: commands, or ["write", path, text].

    ``read``: how to see which mode the device is in; it must then say ``expect``. Without
    ``apply`` the mode can only be checked, never set (mains, battery).
    """

    name: str
    read: Source
    expect: str
    apply: List[List[str]] = field(default_factory=list)
    restore: List[List[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """``sources``: what telemetry looks at; none: every sensor of an ordinary Linux device.

    ``ceiling_c``: the run is stopped when any temperature goes above it. ``order``: seed of the
    order in which the first pass runs the samples (``measure.shuffled``), None: as they are.
    """

    attempt: str
    model: Blob
    model_format: str
    inputs: List[InputTensor]
    runtime: RuntimeSpec
    samples: int
    repeat: int = 1
    warmup: int = 3
    telemetry_hz: float = 2.0
    sources: List[Source] = field(default_factory=list)
    ceiling_c: Optional[float] = None
    soak: Optional[Soak] = None
    power: Optional[PowerMode] = None
    order: Optional[int] = None


@dataclass(frozen=True)
class OutputTensor:
    """``path`` on the device of a .npy [samples, ...] holding exactly what the model put out.

    ``scale``/``zero_point``: per-tensor quantisation the runtime itself reports, else None.
    """

    name: str
    path: str
    blob: Blob
    dtype: str
    shape: List[int]
    scale: Optional[float] = None
    zero_point: Optional[int] = None


@dataclass(frozen=True)
class DeviceFile:
    path: str
    blob: Blob


@dataclass(frozen=True)
class Backend:
    """What really ran. ``nodes``: backend -> number of operators given to it.

    ``planned``: what was asked for. ``fallbacks``: one line for each silent change of backend.
    ``plan_sha256``: hash of the optimised graph (ONNX Runtime), None where there is none.
    ``engines``: file name -> sha256 of each compiled engine the provider used; ``build_ns``: time
    of the load that built them, None when all came from the cache. ``operators``: of that graph,
    type -> count, which tells what it computes in integers and what in float.
    """

    planned: str
    nodes: Dict[str, int]
    fallbacks: List[str] = field(default_factory=list)
    plan_sha256: Optional[str] = None
    engines: Dict[str, str] = field(default_factory=dict)
    build_ns: Optional[int] = None
    operators: Dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Repeats:
    """Bit-repeatability: ``mismatches`` of ``count - 1`` later passes over ``samples`` samples.

    ``first``: up to 20 [sample, repeat] pairs whose output hash differed from the first pass.
    """

    count: int
    samples: int
    mismatches: int = 0
    first: List[List[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Telemetry:
    """Summary of the sampler. Unreadable is None, never 0.

    ``start``/``end``/``max`` map a sensor (named as in ``telemetry.sensors``) to its reading.
    ``timing_valid`` is False when clocks, throttle flags or a power mode moved while timing, or a
    temperature that the run depends on was lost; ``reasons`` why.
    """

    samples: int
    start: Dict[str, Optional[float]] = field(default_factory=dict)
    end: Dict[str, Optional[float]] = field(default_factory=dict)
    max: Dict[str, Optional[float]] = field(default_factory=dict)
    timing_valid: bool = True
    reasons: List[str] = field(default_factory=list)


@dataclass(frozen=True)
class Soaked:
    """What a soak came to: temperatures in degrees Celsius, times in seconds.

    ``reached``: the target was; ``mismatches`` of ``inferences`` differed from the first pass.
    """

    target_c: float
    reached: bool
    heat_s: float
    hold_s: float
    inferences: int
    mismatches: int
    first: List[List[int]] = field(default_factory=list)
    max_c: Optional[float] = None


@dataclass(frozen=True)
class Ordered:
    """Whether the order of samples changed the answer.

    The first pass ran in the order of ``seed``; its first ``sample`` was run again at the end, and
    ``same`` says whether it then gave the same bytes.
    """

    seed: int
    sample: int
    same: bool


@dataclass(frozen=True)
class JobResult:
    """The result of a job.

    ``files``: "latency_ns" (.npy int64 [samples], first pass), "sample_hashes" (.npy uint8
    [samples, 32], sha256 over one sample's output bytes in tensor order), "telemetry" (.jsonl).
    ``power``: the mode the device was in. ``notes``: what a reader should know of the run; they
    spoil nothing.
    """

    attempt: str
    outputs: List[OutputTensor]
    files: Dict[str, DeviceFile]
    backend: Backend
    repeats: Repeats
    telemetry: Telemetry
    environment: Dict[str, Any]
    model_sha256: str
    input_sha256: List[str]
    load_ns: int
    run_ns: int
    started_unix: float
    ended_unix: float
    soak: Optional[Soaked] = None
    power: Optional[str] = None
    notes: List[str] = field(default_factory=list)
    order: Optional[Ordered] = None


@dataclass(frozen=True)
class Batch:
    """``archive``: the zip of models and inputs that ``device_worker.batch`` describes."""

    attempt: str
    archive: Blob
    model_format: str
    runtime: RuntimeSpec


@dataclass(frozen=True)
class BatchResult:
    """``answers``: a zip, likewise. ``run_ns``: all of it, loading and hashing included."""

    attempt: str
    answers: DeviceFile
    environment: Dict[str, Any]
    archive_sha256: str
    run_ns: int


@dataclass(frozen=True)
class Reading:
    """One look at all sensors: name (``telemetry.parsers``) to value, None is unknown."""

    t_s: float
    values: Dict[str, Optional[float]]


def dump(value: Any) -> Dict[str, Any]:
    """A dataclass of this module as plain JSON data."""
    return dataclasses.asdict(value)


def load(cls: Type[T], data: Any) -> T:
    """Rebuild a dataclass of this module; unknown, missing or ill-typed fields are WireErrors."""
    if not isinstance(data, dict):
        raise WireError(f"{cls.__name__}: not an object")
    hints = _hints(cls)  # type: ignore[arg-type]  # mypy doubts that a class is hashable
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise WireError(f"{cls.__name__}: unknown field {unknown[0]!r}")
    try:
        return cls(**{k: coerce(hints[k], v, f"{cls.__name__}.{k}") for k, v in data.items()})
    except TypeError as error:
        raise WireError(f"{cls.__name__}: {error}") from error


@functools.lru_cache(maxsize=None)
def _hints(cls: Type[Any]) -> Dict[str, Any]:
    # Evaluating the annotations costs more than everything else in ``load``.
    return typing.get_type_hints(cls)


def coerce(hint: Any, value: Any, where: str) -> Any:
    """``value`` as its type hint has it; ``where`` names it. Raises WireError."""
    if hint is Any:
        return value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        if value is None and type(None) in args:
            return None
        return coerce(next(a for a in args if a is not type(None)), value, where)
    if origin is list:
        _expect(value, list, where)
        return [coerce(args[0], v, where) for v in value]
    if origin is tuple:
        _expect(value, list, where)
        return tuple(coerce(args[0], v, where) for v in value)
    if origin is dict:
        _expect(value, dict, where)
        return {k: coerce(args[1], v, where) for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return load(typing.cast("Type[Any]", hint), value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, bool):
        raise WireError(f"{where}: expected int, got bool")
    _expect(value, hint, where)
    return value


_UNIONS = (typing.Union, getattr(types, "UnionType", typing.Union))
"""Of `Optional[X]`, and of ``X | None`` where Python has it."""


def _expect(value: Any, kind: Any, where: str) -> None:
    if not isinstance(value, kind):
        raise WireError(f"{where}: expected {kind.__name__}, got {type(value).__name__}")
