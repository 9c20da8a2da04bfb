from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.models.lineage_verdict import Lineage, lineage
from orchestrator.models.steps import on_lattice
from orchestrator.models.weights import Found, Weights
from tests.unit.models.arrays import Array, net, of_float, of_int8, quantised


def judged(int8: Weights, fp32: dict[str, Array]) -> Lineage:
    return lineage(int8, of_float(fp32))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    axis=st.sampled_from([None, 0, -1]),
    unsigned=st.booleans(),
    order=st.permutations(list(net())),
    turned=st.booleans(),
)
def test_quantised_weights_are_nearest_steps_whatever_names_order_and_layout(
    seed: int, axis: int | None, unsigned: bool, order: list[str], turned: bool
) -> None:
    parent = net(seed)
    # Renamed, in another order, and read as OIHW where the file has OHWI.
    renamed = {f"n{i}": parent[name].T if turned else parent[name] for i, name in enumerate(order)}
    got = judged(of_int8(parent, axis, unsigned), renamed)
    assert got.verdict == "nearest-step"
    assert (got.matched, got.within, got.weights) == (
        5,
        got.weights,
        sum(map(np.size, parent.values())),
    )
    assert got.worst is not None
    assert 0.4 < got.worst < 0.501
    truth = {name: f"n{order.index(name)}" for name in parent}
    assert {m.name: m.parent for m in got.table} == truth


def test_a_flattened_picture_may_count_its_channels_first_or_last() -> None:
    dense = np.random.default_rng(1).normal(size=(10, 4 * 5 * 6)).astype(np.float32)
    last = dense.reshape(10, 4, 5, 6).transpose(0, 2, 3, 1).reshape(10, -1)  # CHW -> HWC
    for layout in (last, last.T):
        got = judged(of_int8({"dense": dense}), {"w": layout})
        assert (got.verdict, got.within) == ("nearest-step", 1200)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_another_training_is_unrelated(seed: int) -> None:
    got = judged(of_int8(net(seed)), net(seed + 1))
    assert got.verdict == "unrelated"
    assert got.correlation is not None
    assert abs(got.correlation) < 0.3


def test_fine_tuning_is_derived_and_one_changed_weight_is_told_from_it() -> None:
    parent, random = net(), np.random.default_rng(5)
    tuned = {k: (v + random.normal(0, 0.02, v.shape)).astype(np.float32) for k, v in parent.items()}
    got = judged(of_int8(tuned), parent)
    assert got.verdict == "derived"
    assert "fine-tuned" in got.reason
    int8 = of_int8(parent)
    int8.codes[0].codes.flat[7] ^= 64  # one stuck bit
    got = judged(int8, parent)
    assert (got.verdict, got.weights - got.within) == ("derived", 1)
    assert got.worst is not None
    assert 63 < got.worst < 65
    assert "single weights" in got.reason


def test_equalised_channels_are_derived_and_said_to_be_equalised() -> None:
    parent, random = net(), np.random.default_rng(2)
    moved = {}
    for name, values in parent.items():
        out = np.exp(random.normal(0, 0.3, values.shape[0])).reshape(-1, *[1] * (values.ndim - 1))
        back = np.exp(random.normal(0, 0.3, values.shape[-1]))
        moved[name] = (values * out * back).astype(np.float32)
    got = judged(of_int8(moved), parent)
    assert got.verdict == "derived"
    assert "equalisation" in got.reason
    assert got.equalised is not None
    assert got.equalised > 0.95 * got.weights > 2 * got.within


def test_a_quantised_or_dequantised_parent_is_not_fp32() -> None:
    parent = net()
    int8 = of_int8(parent)
    hybrid = Weights(int8.codes[:1], of_float(parent).reals[1:])
    got = lineage(int8, hybrid)
    assert (got.verdict, got.parent_quantised) == ("not-fp32", 1)
    for axis in (None, 0):
        stored = {c.name: c.values().astype(np.float32) for c in of_int8(parent, axis).codes}
        got = judged(int8, stored)
        assert (got.verdict, got.parent_on_lattice) == ("not-fp32", 5)
    got = lineage(of_float(parent), int8)
    assert got.verdict == "not-fp32"
    assert "other way round" in got.reason


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_plain_weights_are_on_no_lattice(dtype: Any) -> None:
    random = np.random.default_rng(3)
    for shape in [(64,), (3, 3, 16), (1, 3, 3, 9), (100, 100)]:
        assert not on_lattice(random.normal(size=shape).astype(dtype))
        codes, scale, _ = quantised(random.normal(size=(shape)))
        assert on_lattice((codes * scale).astype(np.float32))


def test_missing_tensors_are_said_to_be_missing() -> None:
    parent = net()
    int8 = of_int8(parent)
    del parent["dense"]
    got = judged(int8, parent)
    assert (got.verdict, got.tensors, got.matched) == ("derived", 5, 4)
    assert "1 of 5 weight tensors have no counterpart" in got.reason
    assert [m.within for m in got.table if m.parent is None] == [None]
    got = judged(int8, {"w": np.ones((7, 7), np.float32)})
    assert (got.verdict, got.matched) == ("unrelated", 0)


def test_what_says_nothing_is_inconclusive() -> None:
    parent = net()
    assert judged(of_float(parent), parent).verdict == "inconclusive"
    assert judged(of_int8(parent), {}).verdict == "inconclusive"
    few = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.float32)[:, :4, :4]
    got = judged(of_int8({"few": few}), {"w": few[::-1]})
    assert (got.verdict, got.weights) == ("inconclusive", 32)
    # Steps so coarse that every weight rounds to zero: anything would be "nearest".
    found = Found()
    found.add_codes("coarse", np.zeros((16, 16), np.int64), [1e9], [0], 0, (-128, 127))
    assert judged(found.done(), {"w": parent["twin"]}).verdict == "inconclusive"


def test_biases_that_were_corrected_are_named_and_decide_nothing() -> None:
    parent = net() | {"bias": np.linspace(-1, 1, 16, dtype=np.float32)}
    for shift, said in ((0, ""), (3, "1 of 1 biases are not")):
        found = Found(codes=list(of_int8(net()).codes))
        bias = np.rint(parent["bias"] / 1e-4).astype(np.int64) + shift
        found.add_codes("bias", bias, [1e-4], [0], 0, (-(2**31), 2**31 - 1))
        got = judged(found.done(), parent)
        assert (got.verdict, got.biases, got.biases_within) == ("nearest-step", 1, 1 - bool(shift))
        assert said in got.reason


def test_scales_that_are_none_are_skipped_and_said() -> None:
    found = Found()
    for scale in ([0.0], [np.nan], [-1.0], [1.0, 2.0]):
        found.add_codes("w", np.ones((3, 3), np.int64), scale, [0], 0, (-128, 127))
    assert not found.codes
    assert len(found.skipped) == 4
    got = judged(found.done(), net())
    assert (got.verdict, "2 scales do not fit" in got.reason) == ("inconclusive", True)


def test_a_parent_in_float16_is_allowed_its_own_rounding_and_no_more() -> None:
    parent = net()
    halves = {k: v.astype(np.float16) for k, v in parent.items()}
    got = judged(of_int8(parent), halves)
    assert got.verdict == "nearest-step"
    assert got.worst is not None
    assert got.worst > 0.502, "or this shows nothing"
    moved = {k: (v * np.float32(1.002)).astype(np.float16) for k, v in parent.items()}
    assert judged(of_int8(parent), moved).verdict == "derived"


def test_float_weights_that_a_hybrid_kept_are_looked_for_in_the_parent() -> None:
    parent = net()
    for factor, equal, said in ((1.0, 1, ""), (1.01, 0, "1 of 1 float weight tensors")):
        kept = of_float({"kept": parent["conv"].transpose(3, 1, 2, 0) * np.float32(factor)})
        hybrid = Weights(of_int8(parent).codes[1:], kept.reals)
        got = judged(hybrid, parent)
        assert (got.verdict, got.floats, got.floats_equal) == ("nearest-step", 1, equal)
        assert said in got.reason


def test_of_equally_correlated_constants_the_nearest_is_the_counterpart() -> None:
    """A factor changes no correlation, and two numbers are always correlated."""
    parent = net()
    parent |= {"scaled": parent["twin"] * np.float32(1.5), "pair": np.array([[1, 2]], np.float32)}
    parent |= {"other pair": np.array([[5, 9]], np.float32)}
    wanted = list(parent)
    got = judged(of_int8(parent), dict(reversed(parent.items())))
    assert got.verdict == "nearest-step"
    assert [m.parent for m in got.table] == wanted
