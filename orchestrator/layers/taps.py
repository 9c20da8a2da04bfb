"""TFLite: every operator's output, quantised against the FP32 parent's. Pure but for the device.

Both files run as prefixes on one device. *Accumulated* is what the quantised model has there;
*local* is what the operator makes of the parent's own tensors, rounded to the lattices it reads:
the golden inputs. Operators are matched by their order, so parent and file must hold the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchestrator.layers import surgery
from orchestrator.layers.graph import Array, Graph, Lattice, NotLocalisableError
from orchestrator.layers.prefixes import prefix_tensors
from orchestrator.layers.sides import Side, Trial
from orchestrator.variance.lattice import Output
from orchestrator.variance.layer import LayerStats, amplification, layer_stats

MOVES = ("QUANTIZE", "DEQUANTIZE")
"""Operators of quantised files alone, which change the form of a tensor and not what it says."""
CLIP, SQNR_DB, USED = 0.01, 20.0, 0.1
"""What docs/guides/layers.md calls too much clipping, too little signal, too few codes."""
RANGE_COLLAPSE, CASCADE = "dynamic range collapse", "saturation cascade"


@dataclass(frozen=True)
class Tap:
    """One tensor: an operator's first output, or (``index`` None) an input of the model.

    ``local`` is None for an input, and where the operator cannot be run alone. ``amplification``:
    log of the growth of the accumulated relative error over the operator before.
    """

    index: int | None
    kind: str
    name: str
    accumulated: LayerStats
    local: LayerStats | None
    amplification: float | None


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


def tap(
    model: bytes, parent: bytes, inputs: Sequence[Array], golden: Sequence[Array], side: Side
) -> Taps:
    """``inputs`` of the file and ``golden`` of its parent, [samples, *shape], same samples.

    Raises NotLocalisableError; InputError E-MODEL-UNREADABLE; what a device raises.
    """
    graph, whole = surgery.read_tflite(model), surgery.read_tflite(parent)
    twins = _twins(graph, whole)
    codes = prefix_tensors(model, graph, inputs, side)
    real = prefix_tensors(parent, whole, golden, side)
    truth = {t: real[twin] for t, twin in twins.items() if twin in real}
    alone = _local(model, graph, truth, codes, side)
    taps = [
        Tap(None, "input", name, _stats(truth[name], codes[name], graph, name), None, None)
        for name in graph.inputs
        if name in graph.lattices
    ]
    for i, operator in enumerate(graph.operators):
        t = operator.outputs[0]
        if operator.kind in MOVES or t not in truth or not _known(graph, codes, t):
            continue
        taps.append(
            Tap(
                i,
                operator.kind,
                operator.name,
                _stats(truth[t], codes[t], graph, t),
                None if t not in alone else _stats(truth[t], alone[t], graph, t),
                None,
            )
        )
    growth = amplification([each.accumulated.noise_ratio for each in taps])
    full = tuple(
        Tap(**{**vars(each), "amplification": log}) for each, log in zip(taps, growth, strict=True)
    )
    return Taps(side.name, full, tuple(findings(full)))


def findings(taps: Sequence[Tap]) -> list[Finding]:
    """What has a name, and where it begins.

    *Dynamic range collapse*: the parent's values do not fit. More than CLIP of them lie over a step
    outside of what the codes reach; or, on golden inputs, they huddle on fewer than USED of the
    codes with less than SQNR_DB of signal. *Saturation cascade*: more codes than CLIP lie at the
    ends of the range where the parent's values do not, and operators behind that are sound by
    themselves (local SQNR at least SQNR_DB) end below SQNR_DB.
    """
    found = []
    for i, each in enumerate(taps):
        own = each.local or each.accumulated
        if (own.range_overflow or 0.0) > CLIP:
            share = f"{100 * (own.range_overflow or 0.0):.3g} %"
            why = f"{share} of {own.n:,} FP32 values lie outside of what its codes reach"
            found.append(Finding(RANGE_COLLAPSE, i, why))
            break
        if _below(own) and own.code_utilisation is not None and own.code_utilisation < USED:
            why = f"its values use {100 * own.code_utilisation:.3g} % of the codes"
            found.append(Finding(RANGE_COLLAPSE, i, f"{why}, SQNR {own.sqnr_db:.3g} dB"))
            break
    for i, each in enumerate(taps):
        if (each.accumulated.clip_excess or 0.0) <= CLIP:
            continue
        behind = [t for t in taps[i + 1 :] if _below(t.accumulated) and t.local]
        hit = [t for t in behind if t.local is not None and not _below(t.local)]
        if hit:
            share = f"{100 * (each.accumulated.clip_excess or 0.0):.3g} %"
            why = (
                f"{share} of {each.accumulated.n:,} codes saturate that should not; "
                f"{len(hit)} sound operators behind it end below {SQNR_DB:g} dB"
            )
            found.append(Finding(CASCADE, i, why))
            break
    return found


def _below(stats: LayerStats) -> bool:
    return stats.sqnr_db is not None and stats.sqnr_db < SQNR_DB


def _twins(graph: Graph, parent: Graph) -> dict[str, str]:
    """Tensor of the file -> the parent's that it stands for."""
    theirs = [o for o in parent.operators if o.kind not in MOVES]
    mine = [o for o in graph.operators if o.kind not in MOVES]
    forms = [
        (len(whole.inputs), [(o.kind, len(o.outputs)) for o in operators])
        for whole, operators in ((graph, mine), (parent, theirs))
    ]
    if forms[0] != forms[1]:
        raise NotLocalisableError("the FP32 parent does not have the file's operators in its order")
    twins, partner = dict(zip(graph.inputs, parent.inputs, strict=True)), iter(theirs)
    for operator in graph.operators:
        if operator.kind in MOVES:
            if operator.inputs and operator.inputs[0] in twins:
                twins[operator.outputs[0]] = twins[operator.inputs[0]]
        else:
            twins.update(zip(operator.outputs, next(partner).outputs, strict=True))
    return twins


def _local(
    model: bytes,
    graph: Graph,
    truth: Mapping[str, Array],
    codes: Mapping[str, Array],
    side: Side,
) -> dict[str, Array]:
    """Each operator's first output on golden inputs."""
    spans = [(i, i) for i in range(len(graph.operators))]
    trials: list[Trial] = []
    outputs: list[str] = []
    for operator, piece in zip(graph.operators, surgery.cut_tflite(model, spans), strict=True):
        if operator.kind in MOVES or not piece.inputs or not set(piece.inputs) <= set(truth):
            continue
        given = tuple(_rounded(truth[t], codes[t], graph.lattices.get(t)) for t in piece.inputs)
        trials.append(Trial(str(len(trials)), piece.model, given))
        outputs.append(piece.outputs[0])
    ran = side.run(trials)
    return {t: one.outputs[0] for t, one in zip(outputs, ran, strict=True) if one.error is None}


def _rounded(real: Array, codes: Array, lattice: Lattice | None) -> Array:
    """Real values as the codes of a tensor; as they are where it has none."""
    if lattice is None or codes.dtype.kind not in "iu":
        return real.astype(codes.dtype)
    limits = np.iinfo(codes.dtype)
    q = np.rint(real.astype(np.float64) / np.float32(lattice.scale)) + lattice.zero_point
    found: Array = np.clip(q, limits.min, limits.max).astype(codes.dtype)
    return found


def _known(graph: Graph, codes: Mapping[str, Array], tensor: str) -> bool:
    """Whether its real values are: integers need a lattice."""
    return tensor in codes and (codes[tensor].dtype.kind == "f" or tensor in graph.lattices)


def _stats(truth: Array, values: Array, graph: Graph, tensor: str) -> LayerStats:
    if truth.shape != values.shape:
        what = f"tensor {tensor} is {values.shape[1:]}, in the FP32 parent {truth.shape[1:]}"
        raise NotLocalisableError(what)
    lattice = graph.lattices.get(tensor)
    if lattice is None or values.dtype.kind not in "iu":
        return layer_stats(truth, Output(tensor, values))
    limits = np.iinfo(values.dtype)
    # A softmax's 1 lies a step above its last code, and loses no more than that.
    ends = tuple(
        (end + step - lattice.zero_point) * lattice.scale
        for end, step in ((limits.min, -1), (limits.max, 1))
    )
    output = Output(tensor, values, lattice.scale, lattice.zero_point)
    return layer_stats(truth, output, calibrated=(ends[0], ends[1]))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
