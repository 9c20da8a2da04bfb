"""An integer reference whose rounding can be chosen. Pure: accumulators in, codes out.

No vendor's "reference kernel" is stable enough to be one: TFLite's own changed the rounding of
FULLY_CONNECTED between releases and kept that of CONV_2D. Accumulators are exact (int64); what
differs between runtimes and processors is how they become 8-bit codes, and that is a *mode* here:

half-even  float32 product, ties to even: MLAS (``cvtps``, ``vcvtnq``), XNNPACK "fp32"
half-away  float32 product, ties away from zero: C's ``roundf``, ARM's ``vcvtaq``
half-up    one 64-bit product with a Q31 multiplier, ties up: TFLite with TFLITE_SINGLE_ROUNDING
rndnu      the same with the 24 bits of a float32 multiplier: XNNPACK "rndnu" (NEON)
rndnu16    accumulator brought to 16 bits first, 15-bit multiplier: XNNPACK on Cortex-A53/A55
double     gemmlowp: a rounding doubling high product, then a shift with ties away from zero
double-up  the same product, then a shift with ties up (ARM's ``vrshl``; ruy on x86)
truncate   towards zero (integer division); only averages know it

A kernel written with vectors may do otherwise in what is left over at their end: ``lanes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scales:
    """Real value of one step of each operand and of the output; ``b`` may be [channels].

    Kernels derive their multiplier from these in single or in double precision, and that shows.
    """

    a: Any
    b: Any
    out: Any

    @property
    def single(self) -> NDArray[np.float32]:
        """a·b/out in float32, in that order, as MLAS and XNNPACK compute it."""
        a, b, out = (np.asarray(x, np.float32) for x in (self.a, self.b, self.out))
        return np.asarray(a * b / out, np.float32)

    @property
    def double(self) -> Floats:
        """a·b/out in float64, as TFLite computes it."""
        a, b, out = (np.asarray(np.float32(x), np.float64) for x in (self.a, self.b, self.out))
        return np.asarray(a * b / out)


Mode = Callable[[Ints, Scales], Ints]
"""Exact accumulators [..., channels] to output steps of that shape, not moved, not clamped."""


def fixed_point(multiplier: Any) -> tuple[Ints, Ints]:
    """(Q31 mantissa, exponent) with multiplier ≈ mantissa · 2^(exponent-31).

    TFLite's QuantizeMultiplier: the mantissa is rounded half up and lies in [2^30, 2^31).
    """
    fraction, exponent = np.frexp(np.asarray(multiplier, np.float64))
    mantissa = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    full = mantissa == 1 << 31
    return np.where(full, mantissa >> 1, mantissa), exponent.astype(np.int64) + full


def float_bits(multiplier: Any) -> tuple[Ints, Ints]:
    """(24-bit mantissa, exponent) with multiplier = mantissa · 2^(exponent-23), of a float32."""
    bits = np.asarray(multiplier, np.float32).view(np.uint32).astype(np.int64)
    return (bits & 0x7FFFFF) | 0x800000, (bits >> 23) - 127


def shift_up(x: Ints, by: Any) -> Ints:
    """x / 2^by with ties up; ``by`` < 0 shifts left."""
    by = np.asarray(by, np.int64)
    right, left = np.maximum(by, 0), np.maximum(-by, 0)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    return np.asarray(((x << left) + half) >> right)


def shift_away(x: Ints, by: Any) -> Ints:
    """x / 2^by with ties away from zero: gemmlowp's RoundingDivideByPOT."""
    return np.asarray(np.sign(x) * shift_up(np.abs(x), by))


def high_product(x: Ints, mantissa: Ints) -> Ints:
    """x · mantissa / 2^31, ties up: gemmlowp's SaturatingRoundingDoublingHighMul, SQRDMULH."""
    return np.asarray((x * mantissa + (1 << 30)) >> 31)


def half_even(acc: Ints, scales: Scales) -> Ints:
    """rint(float32(acc) · float32 multiplier): MLAS qgemm requantisation, XNNPACK "fp32"."""
    return np.asarray(np.rint(acc.astype(np.float32) * scales.single), np.int64)


def half_away(acc: Ints, scales: Scales) -> Ints:
    """round(float32(acc) · float32 multiplier): TFLite's reference FULLY_CONNECTED since 2.20."""
    return away(acc.astype(np.float32) * scales.single)


def half_up(acc: Ints, scales: Scales) -> Ints:
    """floor(acc · Q31 multiplier + ½): TFLite's MultiplyByQuantizedMultiplier, single rounding."""
    mantissa, exponent = fixed_point(scales.double)
    return shift_up(acc * mantissa, 31 - exponent)


def rndnu(acc: Ints, scales: Scales) -> Ints:
    """floor(acc · 24-bit multiplier + ½): XNNPACK's requantization-stubs "rndnu"."""
    mantissa, exponent = float_bits(scales.single)
    return shift_up(acc * mantissa, 23 - exponent)


def rndnu16(acc: Ints, scales: Scales) -> Ints:
    """XNNPACK's "rndnu16": round(acc · 2^k) as int16, times 15 bits, ties up at either step."""
    mantissa, exponent = float_bits(scales.single)
    short = np.minimum(shift_up(mantissa, 9), 32767)
    # The multiplier is short/2^15 · 2^(exponent+1); the power of two is applied first, and rounded.
    narrow = np.clip(shift_up(acc, -(exponent + 1)), -32768, 32767)
    return shift_up(narrow * short, 15)


def double(acc: Ints, scales: Scales) -> Ints:
    """TFLite's MultiplyByQuantizedMultiplier, double rounding (gemmlowp/fixedpoint.h)."""
    return _twice(acc, scales.double, shift_away)


def double_up(acc: Ints, scales: Scales) -> Ints:
    """The same with ARM's ``vrshl`` for the shift, as ruy and the depthwise NEON kernels do."""
    return _twice(acc, scales.double, shift_up)


def _twice(acc: Ints, multiplier: Any, shift: Callable[[Ints, Any], Ints]) -> Ints:
    mantissa, exponent = fixed_point(multiplier)
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    return shift(high_product(acc << left, mantissa), right)


ROUNDINGS: Mapping[str, Mode] = {
    "half-even": half_even,
    "half-away": half_away,
    "half-up": half_up,
    "rndnu": rndnu,
    "rndnu16": rndnu16,
    "double": double,
    "double-up": double_up,
}
"""Every requantisation, the commonest first."""


def lanes(acc: Ints, scales: Scales, width: int = 8) -> Ints:
    """double-up in whole vectors of ``width`` channels, double in the channels left over.

    Measured of LiteRT's built-in depthwise kernel, on x86 and ARM.
    """
    whole = np.arange(acc.shape[-1]) < acc.shape[-1] // width * width
    return np.where(whole, double_up(acc, scales), double(acc, scales))


DEPTHWISE: Mapping[str, Mode] = {**ROUNDINGS, "double-up with tail double": lanes}
WIDE: Mapping[str, Mode] = {name: mode for name, mode in ROUNDINGS.items() if name != "rndnu16"}
"""Those that keep the accumulator's bits; only matrix products are ever narrowed."""


def away(x: NDArray[Any]) -> Ints:
    """Nearest integer, ties away from zero.

    In float64, so that x + ½ does not round itself.
    """
    wide = np.asarray(x, np.float64)
    return np.asarray(np.copysign(np.floor(np.abs(wide) + 0.5), wide).astype(np.int64))


def requantised(
    acc: Ints,
    scales: Scales,
    zero: int,
    low: int,
    high: int,
    roundings: Mapping[str, Mode] = ROUNDINGS,
) -> dict[str, Ints]:
    """Mode -> codes, shaped as ``acc`` [..., channels], clamped to [low, high]."""
    return {
        name: np.clip(rounding(acc, scales) + zero, low, high)
        for name, rounding in roundings.items()
    }


def averaged(total: Ints, count: int, zero: int, low: int, high: int) -> dict[str, Ints]:
    """Mode -> codes of total/count, for pools whose input and output share their scale."""
    exact = total / count
    found = {
        "half-even": np.rint(exact).astype(np.int64),
        "half-away": away(exact),
        "truncate": np.trunc(exact).astype(np.int64),
    }
    if total.min() < 0:  # of what is positive, ties go up and away alike
        found["half-up"] = np.floor(exact + 0.5).astype(np.int64)
    return {name: np.clip(codes + zero, low, high) for name, codes in found.items()}


def added_fixed(
    a: Ints, b: Ints, scales: Scales, zero: int, low: int, high: int
) -> dict[str, Ints]:
    """Mode -> codes of a + b in integers; ``a``, ``b`` less their zero points.

    double: TFLite's ADD, which scales both operands to 2^20 parts of a common step, adds, and
    scales back (kernels/internal/reference/add.h). half-up: XNNPACK's vadd, one sum of integer
    products with ties up, of which the larger factor has 21 bits (qs8-vadd, qu8-vadd).
    """
    sa, sb, so = (float(np.float32(x)) for x in (scales.a, scales.b, scales.out))
    widest = 2 * max(sa, sb)
    total = _twice(a << 20, sa / widest, shift_away) + _twice(b << 20, sb / widest, shift_away)
    ra, rb = np.float32(sa) / np.float32(so), np.float32(sb) / np.float32(so)
    shift = 20 - int(np.floor(np.log2(max(ra, rb))))
    ka, kb = (int(np.rint(np.ldexp(float(r), shift))) for r in (ra, rb))
    found = {
        "double": _twice(total, widest / ((1 << 20) * so), shift_away),
        "half-up": shift_up(ka * a + kb * b, shift),
    }
    return {name: np.clip(codes + zero, low, high) for name, codes in found.items()}


def added_float(
    a: Ints, b: Ints, scales: Scales, zero: int, low: int, high: int
) -> dict[str, Ints]:
    """Mode -> codes of a + b through float32, as MLAS' QLinearAdd; the rest as above."""
    ra, rb = (np.float32(x) / np.float32(scales.out) for x in (scales.a, scales.b))
    real = a.astype(np.float32) * ra + b.astype(np.float32) * rb
    found = {"half-even": np.rint(real).astype(np.int64), "half-away": away(real)}
    return {name: np.clip(codes + zero, low, high) for name, codes in found.items()}


def product(a: Ints, b: Ints) -> Ints:
    """a [M, K] · b [K, N], exact."""
    return np.asarray(a.astype(np.int64) @ b.astype(np.int64))


def saturated_product(a: Ints, b: Ints) -> Ints:
    """a [M, K] unsigned · b [K, N] signed as ``VPMADDUBSW`` sums it, [M, N].

    Neighbours along K are multiplied and added in pairs, and each pair saturates at int16: right
    as long as no pair of products passes ±32,767 (Intel SDM, PMADDUBSW).
    """
    if a.shape[1] % 2:
        a, b = np.pad(a, ((0, 0), (0, 1))), np.pad(b, ((0, 1), (0, 0)))
    a, b = a.astype(np.int64), b.astype(np.int64)
    pairs = a[:, 0::2, None] * b[None, 0::2] + a[:, 1::2, None] * b[None, 1::2]
    return np.asarray(np.clip(pairs, -32768, 32767).sum(axis=1))


def convolved(x: Ints, weights: Ints) -> Ints:
    """Accumulators of a VALID convolution with stride 1: [B, H', W', N].

    ``x``: [B, H, W, C] less its zero point; ``weights``: [N, k, k, C], or [1, k, k, C] for a
    depthwise one (N = C).
    """
    k = weights.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))  # [B,H',W',C,k,k]
    depthwise = weights.shape[0] == 1 and x.shape[3] > 1
    form = "bhwckl,klc->bhwc" if depthwise else "bhwckl,nklc->bhwn"
    kernel = weights[0] if depthwise else weights
    return np.asarray(np.einsum(form, windows, kernel), np.int64)


def tabulated(real: Floats, zero: int, low: int, high: int) -> dict[str, Ints]:
    """Mode -> codes of exact values in output steps: what a perfect table or softmax would hold.

    Only where some value lies exactly between two codes there is more than "exact".
    """
    even, up = np.rint(real).astype(np.int64), away(real)
    found = {"exact": even} if np.array_equal(even, up) else {"half-even": even, "half-away": up}
    return {name: np.clip(codes + zero, low, high) for name, codes in found.items()}


def softmax(x: Floats) -> Floats:
    """Over the last axis, in float64."""
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))
