"""Is what a device says of its run an answer to what was asked, and possible? Before its files.

What a model puts out may be anything, NaN and infinity included: it is kept and judged. What a
device says *of* its run must be possible. Nothing here decides whether an answer is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from device_worker import messages, plain, wire
from orchestrator.results.files import described, refuse

LONGEST_NS = 1 << 53
"""A hundred days: no run lasts longer, and every number of nanoseconds up to it is exact."""
NOTES_LIMIT = 200
TOLD = ("clock_offset_s", "recovered", "bundle")
"""What a hub adds to a JobResult."""


@dataclass(frozen=True)
class Declared:
    """One output as the model file declares it. ``shape`` with the batch axis; None is free."""

    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class Asked:
    """What was asked for. ``outputs``: of the model, () where they are not known."""

    job: wire.Job
    device: str
    token: int
    outputs: Sequence[Declared] = field(default=())


def job_result(data: Mapping[str, Any] | None) -> wire.JobResult:
    """What the worker said, out of what a hub hands on. Raises InfraError E-RESULT-FORM, -VALUE."""
    try:
        plain.check_plain(data)
    except wire.WireError as error:
        refuse("E-RESULT-VALUE", str(error))
    try:
        if data is None:
            raise wire.WireError("there is none")
        messages.check_environment(data.get("environment"))
        return wire.load(wire.JobResult, {k: v for k, v in data.items() if k not in TOLD})
    except wire.WireError as error:
        refuse("E-RESULT-FORM", str(error))


def announced(result: wire.JobResult, asked: Asked) -> dict[str, wire.Blob]:
    """The files that are to come, name -> hash and size, of a result that answers what was asked.

    Raises InfraError E-RESULT-FILES, -FORM, -JOB, -SHAPE, -SIZE or -VALUE.
    """
    _check_job(result, asked.job)
    _check_telling(result, asked.job)
    found = {name: file.blob for name, file in described(result, asked.job.samples)}
    _check_declared(result.outputs, asked.outputs)
    return found


def _check_job(result: wire.JobResult, job: wire.Job) -> None:
    if result.attempt != job.attempt:
        refuse("E-RESULT-JOB", f"it answers {result.attempt[:40]!r}, another attempt")
    if result.model_sha256 != job.model.sha256:
        refuse("E-RESULT-JOB", f"model {result.model_sha256[:12]!r} ran, not the one asked for")
    if result.input_sha256 != [tensor.blob.sha256 for tensor in job.inputs]:
        refuse("E-RESULT-JOB", "other inputs were fed than were asked for")
    repeats = result.repeats
    if (repeats.count, repeats.samples) != (job.repeat, job.samples):
        refuse(
            "E-RESULT-JOB",
            f"it has {repeats.count} passes over {repeats.samples} samples,"
            f" not {job.repeat} over {job.samples}",
        )
    if (result.soak is None) != (job.soak is None):
        refuse("E-RESULT-JOB", "it was heated, or was not, other than was asked for")
    if result.power != (job.power.name if job.power else None):
        refuse("E-RESULT-JOB", "it ran in another power mode than was asked for")
    if (result.order.seed if result.order else None) != job.order:
        refuse("E-RESULT-JOB", "its samples ran in another order than was asked for")


def _check_telling(result: wire.JobResult, job: wire.Job) -> None:
    """Counts and times that are possible; that they are finite, `job_result` has seen to."""
    repeats, later = result.repeats, (job.repeat - 1) * job.samples
    in_range("mismatches", repeats.mismatches, 0, later)
    _check_pairs(repeats.first, job.samples)
    in_range("load_ns", result.load_ns, 0, LONGEST_NS)
    in_range("run_ns", result.run_ns, 0, LONGEST_NS)
    in_range("started_unix", result.started_unix, 0, LONGEST_NS)
    in_range("ended_unix", result.ended_unix, 0, LONGEST_NS)
    in_range("telemetry.samples", result.telemetry.samples, 0, LONGEST_NS)
    if result.soak is not None:
        in_range("soak.inferences", result.soak.inferences, 0, LONGEST_NS)
        in_range("soak.mismatches", result.soak.mismatches, 0, result.soak.inferences)
        _check_pairs(result.soak.first, job.samples)
        for name in ("heat_s", "hold_s"):
            in_range(f"soak.{name}", getattr(result.soak, name), 0, LONGEST_NS)
    if result.order is not None:
        in_range("order.sample", result.order.sample, 0, job.samples - 1)
    for i, output in enumerate(result.outputs):
        if output.scale is not None and output.scale <= 0:
            refuse("E-RESULT-VALUE", f"the scale of output-{i} is {output.scale}")
    for count in result.backend.nodes.values():
        in_range("backend.nodes", count, 0, LONGEST_NS)
    if max(len(result.notes), len(result.telemetry.reasons)) > NOTES_LIMIT:
        refuse("E-RESULT-FORM", f"it has more than {NOTES_LIMIT} notes")


def _check_pairs(pairs: Sequence[Sequence[int]], samples: int) -> None:
    if len(pairs) > NOTES_LIMIT or any(len(p) != 2 or not 0 <= p[0] < samples for p in pairs):
        refuse("E-RESULT-FORM", "what differed between passes is no list of samples")


def _check_declared(outputs: Sequence[wire.OutputTensor], declared: Sequence[Declared]) -> None:
    if not declared:
        return
    if len(outputs) != len(declared):
        refuse("E-RESULT-SHAPE", f"it has {len(outputs)} outputs, its model has {len(declared)}")
    for i, (output, known) in enumerate(zip(outputs, declared, strict=True)):
        if known.dtype is not None and output.dtype != known.dtype:
            refuse("E-RESULT-SHAPE", f"output-{i} is {output.dtype}, the model's is {known.dtype}")
        if known.shape is not None and not _fits(output.shape[1:], known.shape):
            refuse(
                "E-RESULT-SHAPE",
                f"a sample of output-{i} has shape {output.shape[1:]}, of the model's"
                f" {['free' if n is None else n for n in known.shape]}",
            )


def _fits(found: Sequence[int], declared: Sequence[int | None]) -> bool:
    """A leading axis of 1 is the sample's own and is not kept; another one is (`OutputFile`)."""
    shapes = [declared[1:]] if declared and declared[0] in (1, None) else []
    if not declared or declared[0] != 1:
        shapes.append(declared)
    return any(
        len(shape) == len(found)
        and all(n is None or n == m for n, m in zip(shape, found, strict=True))
        for shape in shapes
    )


def in_range(what: str, value: float, least: float, most: float) -> None:
    # Written so that NaN fails.
    if not least <= value <= most:
        refuse("E-RESULT-VALUE", f"{what} is {value:g}, which cannot be")
