"""Every layer of a quantised model against the FP32 parent's, on one device. Pure but for it.

*Accumulated* is what the quantised model has there; *local* is what the layer makes of the parent's
own tensors, rounded to the lattices it reads: the golden inputs. Samples come in blocks, and of a
block only sums are kept, so memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from orchestrator.models.graph import Array, Lattice, NotLocalisableError
from orchestrator.variance.intervals import lower_bound, tango_lower
from orchestrator.variance.lattice import Output
from orchestrator.variance.layer import LayerStats, LayerSums, amplification
from orchestrator.variance.lsb_error import FAR, Distance, StepSums

CLIP, SQNR_DB, USED = 0.01, 20.0, 0.1
"""What docs/guides/layers.md calls too much clipping, too little signal, too few codes."""
WRONG = 0.001
"""Share of codes that lie FAR from what the file means: no sound kernel has any."""
FIRST, BLOCK = 8, 32 << 20
"""Samples of the first block, by which tensors are sized; bytes of tensors of the others."""
RANGE_COLLAPSE, CASCADE = "dynamic range collapse", "saturation cascade"
UNSOUND = "unsound operator"


@dataclass(frozen=True)
class Place:
    """A tensor of the model that the parent has too, as ``twin``.

    It is the output of operator ``index``, or an input of the model.
    """

    index: int | None
    kind: str
    name: str
    twin: str
    lattice: Lattice | None


@dataclass(frozen=True, eq=False)
class Seen:
    """The values at one place on some samples, all arrays [samples, *shape] of one shape.

    What the parent has there, what the model has, and what the operator makes of golden inputs, if
    it runs alone; ``meant``: what the file's own numbers make of them in float, where that is
    known.
    """

    place: Place
    truth: Array
    whole: Array
    alone: Array | None
    meant: Array | None = None


class Subject(Protocol):
    """A model and its parent on one device. ``row`` is for people."""

    @property
    def row(self) -> str: ...

    def see(self, inputs: Sequence[Array], golden: Sequence[Array]) -> list[Seen]:
        """The same places in the same order for any block of samples."""


@dataclass(frozen=True)
class Tap:
    """One tensor: an operator's first output, or (``index`` None) an input of the model.

    ``twin``: the parent's tensor. ``local`` is None for an input, and where the operator cannot be
    run alone. ``amplification``: log of the growth of the accumulated relative error over the tap
    before. ``outside``: of each sample, the FP32 values over a step outside of what the codes
    reach; ``saturated``: of each sample, the codes at the ends of their range where the FP32 value
    is over half a step away, and those elsewhere where it is not; both empty for floats.
    ``arithmetic``: how far the codes of ``local`` lie from what the file's own numbers make of the
    same inputs in float; None where there are none.
    """

    index: int | None
    kind: str
    name: str
    twin: str
    accumulated: LayerStats
    local: LayerStats | None
    amplification: float | None
    outside: tuple[int, ...] = ()
    saturated: tuple[tuple[int, int], ...] = ()
    arithmetic: Distance | None = None


@dataclass(frozen=True)
class Finding:
    """``tap``: number in the list of taps at which it begins."""

    name: str
    tap: int
    why: str


@dataclass(frozen=True)
class Taps:
    row: str
    taps: tuple[Tap, ...]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; an infinite SQNR (no error at all) is null."""
        found: dict[str, Any] = _finite(asdict(self))
        return found


def tap(subject: Subject, inputs: Sequence[Array], golden: Sequence[Array]) -> Taps:
    """``inputs`` of the file and ``golden`` of its parent, [samples, *shape], same samples.

    Raises NotLocalisableError; InputError E-MODEL-UNREADABLE; what a device raises.
    """
    layers: list[_Sums] = []
    for block in _blocks(subject, inputs, golden):
        layers = layers or [_Sums(seen) for seen in block]
        for sums, seen in zip(layers, block, strict=True):
            sums.add(seen)
    taps = [sums.tap() for sums in layers]
    growth = amplification([each.accumulated.noise_ratio for each in taps])
    full = tuple(replace(t, amplification=log) for t, log in zip(taps, growth, strict=True))
    return Taps(subject.row, full, tuple(findings(full)))


def findings(taps: Sequence[Tap]) -> list[Finding]:
    """What has a name, and where it begins; of each name the first.

    *Dynamic range collapse*: the parent's values do not fit. More than CLIP of them lie over a step
    outside of what the codes reach, and not in one sample only; or, on golden inputs, they huddle
    on fewer than USED of the codes with less than SQNR_DB of signal. *Unsound operator*: more of
    its codes than WRONG lie over FAR steps from what its own weights make of the same inputs in
    float, whatever is lost against the parent. *Saturation cascade*: more codes than CLIP lie at
    the ends of the range where the parent's values do not, and operators behind that are sound by
    themselves but end below SQNR_DB; it begins at an unsound operator before it, if any. Shares are
    held against their limits by their lower 95 % bounds, of pairs (Tango) where two are subtracted.
    """
    found = []
    collapse = next(((i, why) for i, t in enumerate(taps) if (why := _collapsed(t))), None)
    unsound = next(((i, why) for i, t in enumerate(taps) if (why := _unsound(t.arithmetic))), None)
    if collapse is not None:
        found.append(Finding(RANGE_COLLAPSE, *collapse))
    if unsound is not None:
        found.append(Finding(UNSOUND, *unsound))
    for i, each in enumerate(taps):
        behind = [t.local for t in taps[i + 1 :] if _below(t.accumulated) and t.local]
        sound = sum(not _below(local) for local in behind)
        if sound and _saturates(each.saturated, each.accumulated.n):
            more = sum(there - away for there, away in each.saturated)
            share = f"{100 * more / each.accumulated.n:.3g} %"
            why = (
                f"{share} of {each.accumulated.n:,} codes{_at(each)} saturate that should not; "
                f"{sound} sound operators behind them end below {SQNR_DB:g} dB"
            )
            begin = i if unsound is None else min(i, unsound[0])
            found.append(Finding(CASCADE, begin, why))
            break
    return found


def _at(tap: Tap) -> str:
    return " of the input" if tap.index is None else f" of #{tap.index}"


def _collapsed(tap: Tap) -> str | None:
    own = tap.local or tap.accumulated
    if _outside(tap.outside, own.n):
        share = f"{100 * (own.range_overflow or 0.0):.3g} %"
        return f"{share} of {own.n:,} FP32 values lie outside of what its codes reach"
    if _below(own) and own.code_utilisation is not None and own.code_utilisation < USED:
        used = f"its values use {100 * own.code_utilisation:.3g} % of the codes"
        return f"{used}, SQNR {own.sqnr_db:.3g} dB"
    return None


def _outside(outside: Sequence[int], n: int) -> bool:
    """Whether more than CLIP of ``n`` values lie outside, also without the sample that has most.

    The values of one sample stand or fall together, and one sample is no calibration.
    """
    if len(outside) > 1:
        n -= n // len(outside)
        outside = sorted(outside)[:-1]
    return bool(outside) and lower_bound(sum(outside), n) > CLIP


def _saturates(counts: Sequence[tuple[int, int]], n: int) -> bool:
    """Whether more than CLIP of ``n`` codes are driven to the ends of their range.

    It must hold without the sample that has most, too. Noise makes some small values a ReLU's zero,
    and some zeros small values, so the two counts are compared as pairs are.
    """
    if len(counts) > 1:
        n -= n // len(counts)
        counts = sorted(counts, key=lambda pair: pair[0] - pair[1])[:-1]
    there, away = sum(pair[0] for pair in counts), sum(pair[1] for pair in counts)
    return there - away > CLIP * n and tango_lower(there, away, n) > CLIP


def _unsound(found: Distance | None) -> str | None:
    if found is None or lower_bound(found.far, found.n) <= WRONG:
        return None
    share = f"{100 * found.far / found.n:.3g} % of {found.n:,} codes"
    return (
        f"{share} lie over {FAR:g} steps from what its own weights say, up to {found.max_steps:.3g}"
    )


def _below(stats: LayerStats) -> bool:
    return stats.sqnr_db is not None and stats.sqnr_db < SQNR_DB


def rounded(real: Array, dtype: np.dtype[Any], lattice: Lattice | None) -> Array:
    """Real values as the codes of a tensor; as they are where it has none."""
    if lattice is None or dtype.kind not in "iu":
        return real.astype(dtype)
    limits = np.iinfo(dtype)
    q = real / np.float32(lattice.scale)
    np.rint(q, out=q)
    q += lattice.zero_point
    np.clip(q, limits.min, limits.max, out=q)
    with np.errstate(invalid="ignore"):  # a NaN of the parent counts nowhere, whatever it becomes
        found: Array = q.astype(dtype)
    return found


def reals(codes: Array, lattice: Lattice) -> Array:
    """What the codes stand for, float32."""
    steps = codes.astype(np.float32) - np.float32(lattice.zero_point)
    found: Array = steps * np.float32(lattice.scale)
    return found


def _blocks(
    subject: Subject, inputs: Sequence[Array], golden: Sequence[Array]
) -> Iterator[list[Seen]]:
    """How many samples fit is known only when the tensors of some are.

    The device works on the next block while this one is looked at.
    """

    def see(start: int, size: int) -> list[Seen]:
        part = slice(start, start + size)
        return subject.see([x[part] for x in inputs], [x[part] for x in golden])

    block, count = see(0, FIRST), len(golden[0])
    held = (array for s in block for array in (s.truth, s.whole, s.alone, s.meant))
    total = sum(array.nbytes for array in held if array is not None)
    size = max(1, BLOCK * min(FIRST, count) // max(1, total))
    with ThreadPoolExecutor(1) as ahead:
        for start in range(FIRST, count, size):
            following = ahead.submit(see, start, size)
            yield block
            block = following.result()
        yield block


class _Sums:
    """What has been seen of one place."""

    def __init__(self, seen: Seen) -> None:
        self._place, calibrated = seen.place, None
        lattice = seen.place.lattice
        if lattice is not None and seen.whole.dtype.kind in "iu":
            limits = np.iinfo(seen.whole.dtype)
            # A softmax's 1 lies a step above its last code, and loses no more than that.
            low, high = limits.min - 1 - lattice.zero_point, limits.max + 1 - lattice.zero_point
            calibrated = low * lattice.scale, high * lattice.scale
        self._calibrated = calibrated
        self._beyond: list[int] = []
        self._saturated: list[tuple[int, int]] = []
        self._whole = LayerSums(calibrated=calibrated)
        self._alone: LayerSums | None = None
        if seen.alone is not None:
            beside = self._whole if seen.whole.dtype.kind in "iu" else None
            self._alone = LayerSums(calibrated=calibrated, beside=beside)
        self._steps: StepSums | None = None
        if lattice is not None and seen.alone is not None and seen.alone.dtype.kind in "iu":
            self._steps = StepSums(lattice.scale, lattice.zero_point)

    def add(self, seen: Seen) -> None:
        if seen.truth.shape != seen.whole.shape:
            what = f"{self._place.name} is {seen.whole.shape[1:]}"
            raise NotLocalisableError(f"{what}, in the FP32 parent {seen.truth.shape[1:]}")
        self._whole.add(seen.truth, self._output(seen.whole))
        if self._calibrated is not None:
            low, high = self._calibrated
            self._beyond += _each((seen.truth < low) | (seen.truth > high))
            there, away = _at_one_end(seen, low, high)
            self._saturated += zip(_each(there), _each(away), strict=True)
        if seen.alone is None:
            self._alone = None  # an error of some samples would pass for that of all
        elif self._alone is not None:
            self._alone.add(seen.truth, self._output(seen.alone))
        if seen.alone is None or seen.meant is None:
            self._steps = None
        elif self._steps is not None:
            self._steps.add(seen.alone, seen.meant)

    def tap(self) -> Tap:
        place, local = self._place, None if self._alone is None else self._alone.stats()
        whole = self._whole.stats()
        counted = tuple(self._beyond), tuple(self._saturated)
        steps = None if self._steps is None else self._steps.distance()
        names = place.index, place.kind, place.name, place.twin
        return Tap(*names, whole, local, None, *counted, steps)

    def _output(self, values: Array) -> Output:
        lattice = self._place.lattice
        if lattice is None or values.dtype.kind not in "iu":
            return Output(self._place.name, values)
        return Output(self._place.name, values, lattice.scale, lattice.zero_point)


def _at_one_end(seen: Seen, low: float, high: float) -> tuple[Array, Array]:
    """Which codes are at an end of their range without cause, and which values without a code.

    Codes where the parent's finite value is not at that end, and values where the code is not;
    ``low``, ``high``: a step beyond the ends.
    """
    limits, lattice = np.iinfo(seen.whole.dtype), seen.place.lattice
    assert lattice is not None  # it has ends
    code = (seen.whole == limits.min) | (seen.whole == limits.max)
    inner, outer = 1.5 * lattice.scale, 0.5 * lattice.scale
    value = (seen.truth >= low + outer) & (seen.truth <= low + inner)
    value |= (seen.truth >= high - inner) & (seen.truth <= high - outer)
    return code & ~value & np.isfinite(seen.truth), value & ~code


def _each(hit: Array) -> list[int]:
    """How many, of each sample."""
    found: list[int] = hit.reshape(len(hit), -1).sum(axis=1).tolist()
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
