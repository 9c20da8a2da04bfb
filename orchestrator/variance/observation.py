"""What the store hands to the statistics: who answered, how it went, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.matrix.key import UNKNOWN, Key
from orchestrator.variance.lattice import Array, Output
from orchestrator.variance.tasks import Task

__all__ = ["Observation", "Order", "Output", "Row", "Soak", "Truth"]


@dataclass(frozen=True)
class Row:
    """What identifies an answer: model, inputs, device, runtime and condition.

    ``condition``: "clean", "repeat:N", "soak:75C/60s", "power:MODE", "order:SEED" or "spot:N@SEED".
    """

    model: str
    file: str
    device: str
    device_class: str
    emulated: bool
    runtime: str
    inputs: str
    condition: str


@dataclass(frozen=True)
class Soak:
    """What a soak came to: degrees Celsius, seconds; outputs that differ from the first pass.

    ``max_c`` is None where no temperature could be read.
    """

    target_c: float
    reached: bool
    heat_s: float
    hold_s: float
    inferences: int
    mismatches: int
    max_c: float | None


@dataclass(frozen=True)
class Order:
    """A pass in another order of the samples.

    The samples were run in the order of ``seed``, ``sample`` first and again at the end: ``same``
    says whether it then gave the same bytes.
    """

    seed: int
    sample: int
    same: bool


@dataclass(frozen=True, eq=False)
class Observation:
    """One cell's current standing.

    ``status``: ok, model_error, infra_error, timeout, cancelled, not_available or pending.
    ``repeats`` passes over ``repeat_samples`` samples gave ``repeat_mismatches`` outputs whose
    bytes differ from the first pass. ``soak``: of a soak cell, over the samples of ``outputs``.
    ``power``: the mode the device was in. ``order``: of an order cell; ``outputs`` are in the
    samples' own order all the same. ``isa``: the device's instruction-set flags. ``key``: what
    computed. ``samples`` [n]: positions in the input set of the samples of ``outputs``; None: they
    are its first ones.
    """

    row: Row
    cell: str
    status: str
    attempt: str | None
    outputs: tuple[Output, ...] = ()
    codes_valid: bool = True
    timing_valid: bool = True
    planned_backend: str = ""
    fallbacks: tuple[str, ...] = ()
    isa: frozenset[str] = frozenset()
    repeats: int = 1
    repeat_samples: int = 0
    repeat_mismatches: int = 0
    error: str | None = None
    file_sha256: str = ""
    soak: Soak | None = None
    power: str | None = None
    order: Order | None = None
    key: Key = UNKNOWN
    samples: Array | None = None


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known beforehand of (model, input set).

    ``labels`` [n, ...]; ``fp32`` the outputs of the FP32 parent on the same samples in the same
    order; ``inputs`` [n, ...] real values; ``slices`` column -> [n], what groups the samples;
    ``same`` [n], where there are such, which inputs are equal (`slices.same_inputs`).
    """

    task: Task
    labels: Array | None
    fp32: tuple[Output, ...] | None
    fp32_attempt: str | None
    inputs: Array | None = None
    fp32_error: str | None = None
    slices: Mapping[str, Array] = field(default_factory=dict)
    same: Array | None = None
