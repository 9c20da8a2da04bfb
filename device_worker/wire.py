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
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Type, TypeVar

PROTOCOL = 2
MAX_LINE = 1 << 20
MAX_DEPTH = 32
"""Levels of JSON: four times what any message has."""
MAX_NUMBER = (1 << 63) - 1
"""Nothing that is measured, counted or dated is larger."""

T = TypeVar("T")


class WireError(ValueError):
    """A message does not have the agreed form."""


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
    """The first pass ran in the order of ``seed``; its first ``sample`` was run again at the end,

    and ``same`` says whether it then gave the same bytes.
    """

    seed: int
    sample: int
    same: bool


@dataclass(frozen=True)
class JobResult:
    """``files``: "latency_ns" (.npy int64 [samples], first pass), "sample_hashes" (.npy uint8

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


@dataclass(frozen=True)
class Environment:
    """What is known of ``JobResult.environment`` (`device_worker.environment`); there is more."""

    machine: Optional[str] = None
    kernel: Optional[str] = None
    os: Optional[str] = None
    libc: Optional[str] = None
    python: Optional[str] = None
    python_bits: Optional[int] = None
    numpy: Optional[str] = None
    hardware: Optional[str] = None
    fingerprint: Optional[str] = None
    soc: Optional[str] = None
    isa_flags: Optional[List[str]] = None
    cores: Optional[List[Dict[str, str]]] = None
    governors: Optional[List[str]] = None
    runtimes: Optional[Dict[str, Dict[str, Any]]] = None
    runtime: Optional[Dict[str, Any]] = None
    delegate: Optional[Dict[str, Any]] = None
    board: Optional[Dict[str, Any]] = None
    threads: Optional[int] = None


def check_environment(data: Any) -> None:
    """Raises WireError unless every field of `Environment` that ``data`` has is of its type."""
    _expect(data, dict, "environment")
    known = _hints(Environment)
    load(Environment, {name: value for name, value in data.items() if name in known})


MESSAGES: Dict[str, Dict[str, Any]] = {
    "hello": {
        "protocol": int,
        "pid": Optional[int],
        "python": Optional[str],
        "clock_unix": Optional[float],
        "worker_sha256": Optional[str],
    },
    "heartbeat": {"counter": Optional[int]},
    "pong": {"nonce": Optional[str]},
    "facts": {"environment": Dict[str, Any]},
    "sensors": {"reading": Dict[str, Any], "doubts": Optional[Dict[str, Any]]},
    "probed": {"delegate": Dict[str, Any]},
    "have": {"present": List[str]},
    "adopted": {},
    "progress": {
        "attempt": Optional[str],
        "phase": Optional[str],
        "done": Optional[int],
        "total": Optional[int],
    },
    "result": {"result": Dict[str, Any]},
    "content": {"files": Dict[str, str]},
    "forgotten": {},
    "done": {},
    "bye": {},
    "error": {
        "kind": Optional[str],
        "code": Optional[str],
        "what": Optional[str],
        "mend": Optional[str],
    },
}
"""What a worker says: type -> its fields beside ``type`` and ``id``, as they are coerced."""

ANSWERS = {
    "ping": "pong",
    "facts": "facts",
    "sensors": "sensors",
    "probe": "probed",
    "have": "have",
    "adopt": "adopted",
    "run": "result",
    "batch": "result",
    "fetch": "content",
    "forget": "forgotten",
    "noop": "done",
    "bye": "bye",
}
"""The type of the answer to each request."""


def encode(message: Dict[str, Any]) -> bytes:
    """One line, without its newline. NaN is refused: JSON has none."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()


def decode(line: bytes, limit: int = MAX_LINE) -> Dict[str, Any]:
    """An object of plain JSON data, or WireError.

    At most ``limit`` bytes and MAX_DEPTH levels; numbers are finite and no larger than
    MAX_NUMBER, texts can be encoded.
    """
    if len(line) > limit:
        raise WireError(f"longer than {limit} bytes: {line[:80]!r}")
    try:
        message = json.loads(
            line, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
    except RecursionError:
        raise WireError(f"nested too deep: {line[:80]!r}") from None
    except WireError:
        raise
    except ValueError as error:
        raise WireError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise WireError(f"not an object: {line[:80]!r}")
    check_plain(message)
    return message


def _integer(text: str) -> int:
    # Not by int() first: of a text of millions of digits it takes minutes.
    if len(text) > 20 or abs(int(text)) > MAX_NUMBER:
        raise WireError(f"a number out of range: {text[:40]}")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) <= MAX_NUMBER:
        raise WireError(f"a number out of range: {text[:40]}")
    return value


def _constant(text: str) -> float:
    raise WireError(f"{text} is no number")


def check_plain(data: Any) -> None:
    """Raises WireError for what `decode` would not give: nested too deep, a number out of range,

    a text that no encoding can take, an object that JSON does not have.
    """
    level: List[Any] = [data]
    for _ in range(MAX_DEPTH):
        below: List[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            else:
                _check_scalar(value)
        if not below:
            return
        level = below
    raise WireError(f"nested deeper than {MAX_DEPTH} levels")


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise WireError(f"a text with half a character: {value[:40]!r}") from None
    elif isinstance(value, (int, float)):
        if not abs(value) <= MAX_NUMBER:  # NaN is no less than anything
            raise WireError("a number out of range")
    elif value is not None:
        raise WireError(f"a {type(value).__name__} is no plain data")


def message(line: bytes) -> Dict[str, Any]:
    """A message of the worker's: of a known type, each of its fields as MESSAGES has it.

    Raises WireError.
    """
    data = decode(line)
    kind = data.get("type")
    fields = MESSAGES.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise WireError(f"unknown type {str(kind)[:40]!r}")
    unknown = sorted(set(data) - set(fields) - {"type", "id"})
    if unknown:
        raise WireError(f"{kind}: unknown field {unknown[0][:40]!r}")
    found = {name: _coerce(hint, data.get(name), f"{kind}.{name}") for name, hint in fields.items()}
    ident = _coerce(Optional[int], data.get("id"), f"{kind}.id")
    if kind == "facts":
        check_environment(found["environment"])
    return {"type": kind, "id": ident, **found}


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
        return cls(**{k: _coerce(hints[k], v, f"{cls.__name__}.{k}") for k, v in data.items()})
    except TypeError as error:
        raise WireError(f"{cls.__name__}: {error}") from error


@functools.lru_cache(maxsize=None)
def _hints(cls: Type[Any]) -> Dict[str, Any]:
    # Evaluating the annotations costs more than everything else in ``load``.
    return typing.get_type_hints(cls)


def _coerce(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        if value is None and type(None) in args:
            return None
        return _coerce(next(a for a in args if a is not type(None)), value, where)
    if origin is list:
        _expect(value, list, where)
        return [_coerce(args[0], v, where) for v in value]
    if origin is tuple:
        _expect(value, list, where)
        return tuple(_coerce(args[0], v, where) for v in value)
    if origin is dict:
        _expect(value, dict, where)
        return {k: _coerce(args[1], v, where) for k, v in value.items()}
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
