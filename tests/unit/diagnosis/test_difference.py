"""Numbers about two tensors, and the choice of samples, over arrays that hypothesis thinks up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.diagnosis.sample_choice import choose, distances
from orchestrator.models.graph import NotLocalisableError, difference

rows = st.integers(1, 6)


@st.composite
def codes(draw: st.DrawFn) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    shape = (draw(rows), draw(rows))
    size = shape[0] * shape[1]
    flat = st.lists(st.integers(-128, 127), min_size=size, max_size=size)
    a, b = (np.array(draw(flat), np.int8).reshape(shape) for _ in range(2))
    return a, b


@given(codes())
def test_integers_by_hand(pair: tuple[NDArray[np.int8], NDArray[np.int8]]) -> None:
    a, b = pair
    found, delta = difference((a,), (b,)), a.astype(int) - b.astype(int)
    assert (found.elements, found.different) == (a.size, int((delta != 0).sum()))
    assert (found.samples, found.samples_different) == (len(a), int((delta != 0).any(1).sum()))
    assert (found.max_lsb, found.max_abs) == (int(abs(delta).max()), None)
    assert found.mean_lsb == pytest.approx(delta.mean())
    assert found.a_higher == (delta > 0).sum()


@given(codes())
def test_exchanging_the_sides_turns_the_sign(
    pair: tuple[NDArray[np.int8], NDArray[np.int8]],
) -> None:
    one, other = difference(pair[:1], pair[1:]), difference(pair[1:], pair[:1])
    turned = {"+": "-", "-": "+", "±": "±", "": ""}
    assert (one.max_lsb, one.different, turned[one.sign]) == (
        other.max_lsb,
        other.different,
        other.sign,
    )
    assert difference(pair[:1], pair[:1]).different == 0


def test_floats_are_compared_by_their_bits() -> None:
    a = np.array([[0.0, 1.0, np.nan, 2.0]], np.float32)
    b = np.array([[-0.0, 1.0, np.nan, 2.5]], np.float32)
    found = difference((a,), (b,))
    assert (found.different, found.max_lsb, found.mean_lsb) == (2, None, None)
    assert found.max_abs == 0.5
    infinite = difference((a,), (np.full_like(a, np.inf),))
    assert infinite.max_abs is None


def test_other_shapes_cannot_be_compared() -> None:
    with pytest.raises(NotLocalisableError, match="forms"):
        difference((np.zeros((2, 3)),), (np.zeros((2, 4)),))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 80))
def test_samples_furthest_apart_come_first(far: list[int], most: int) -> None:
    distance = np.array(far, np.float64)
    chosen = choose(distance, most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(most, len(far))
    left = np.delete(distance, chosen)
    assert left.size == 0 or distance[chosen].min() >= left.max()


def test_distances_are_zero_for_equal_bytes_only() -> None:
    a = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, np.nan], [0.0, np.nan], [1.0, 2.0]], np.float32)
    b = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, np.nan], [0.0, 1.0], [1.0, 2.5]], np.float32)
    found = distances((a,), (b,))
    assert found[0] == found[2] == 0
    assert 0 < found[1] < 1e-300
    assert found[3:].tolist() == [np.inf, 0.5]
    assert np.isinf(distances((a,), (b.astype(np.float64),))).all()


def test_codes_far_apart_do_not_wrap() -> None:
    low, high = np.full((1, 2), -128, np.int8), np.full((1, 2), 127, np.int8)
    assert distances((low,), (high,)).tolist() == [255.0]
