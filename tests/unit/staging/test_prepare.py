from __future__ import annotations

import hashlib
import io
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InputError
from orchestrator.models.inspect import TensorInfo
from orchestrator.staging.prepare import npy_bytes, prepare


def takes(
    shape: tuple[int, ...],
    dtype: str = "float32",
    scale: float | None = None,
    zero_point: int | None = None,
) -> TensorInfo:
    return TensorInfo("x", dtype, shape, scale, zero_point)


PICTURES = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)


def test_layouts_move_elements_as_they_say() -> None:
    same = prepare(PICTURES, "same", takes((1, 4, 5, 3)))
    assert np.array_equal(same, PICTURES)
    first = prepare(PICTURES, "nchw", takes((-1, 3, 4, 5)))
    assert first.shape == (2, 3, 4, 5)
    assert first.flags.c_contiguous
    assert first[1, 2, 3, 4] == PICTURES[1, 3, 4, 2]
    assert first[0, 1, 2, 0] == PICTURES[0, 2, 0, 1]
    flat = prepare(PICTURES, "flat", takes((1, 60)))
    assert np.array_equal(flat[1], PICTURES[1].reshape(-1))


@pytest.mark.parametrize(
    ("have", "layout", "want"),
    [
        ((3, 49, 10), "same", (1, 49, 10, 1)),
        ((3, 49, 10, 1), "same", (1, 49, 10)),
        ((3, 49, 10), "nchw", (1, 1, 49, 10)),
        ((3,), "same", (1, 1)),
        ((3, 7, 1), "flat", (-1, 7)),
        ((3, 5, 7), "same", (-1, -1, 7)),
    ],
)
def test_axes_of_one_and_dynamic_axes(
    have: tuple[int, ...], layout: Any, want: tuple[int, ...]
) -> None:
    x = np.arange(np.prod(have), dtype=np.float32).reshape(have)
    got = prepare(x, layout, takes(want))
    assert len(got) == 3
    assert np.array_equal(got.reshape(-1), x.reshape(-1))
    if -1 not in want[1:]:
        assert got.shape[1:] == want[1:]


@pytest.mark.parametrize(
    ("have", "layout", "want", "says"),
    [
        ((2, 4, 5, 3), "same", (1, 3, 4, 5), "[4, 5, 3] after the layout, the model takes [3, 4"),
        ((2, 4, 5, 3), "same", (1, 3, 4, 5), "set layout: nchw"),
        ((2, 4, 5, 3), "same", (1, 60), "set layout: flat"),
        ((2, 8, 8, 1), "same", (1, 32, 32, 1), "[8, 8, 1]"),
        ((2, 60), "nchw", (1, 3, 4, 5), "needs samples [height, width, channels]"),
        ((2, 5, 7), "same", (-1, -1, 8), "[?, 8]"),
        ((2, 5), "same", (8, 5), "must be a batch of 1"),
        ((2, 5), "same", (), "must be a batch of 1"),
        ((2, 3, 2), "same", (1, 2, 3), "layout: nchw"),
    ],
)
def test_shapes_that_do_not_fit_name_both(
    have: tuple[int, ...], layout: Any, want: tuple[int, ...], says: str
) -> None:
    with pytest.raises(InputError) as caught:
        prepare(np.zeros(have, np.float32), layout, takes(want))
    assert caught.value.id == "E-INPUT-SHAPE"
    assert says in str(caught.value)


def test_ties_round_to_even_and_ends_clip() -> None:
    x = np.array([-1000, -1.5, -0.5, 0.5, 1.5, 2.5, 1000], np.float32).reshape(7, 1)
    got = prepare(x, "same", takes((1, 1), "int8", 1.0, 10))
    assert got.dtype == np.int8
    assert got[:, 0].tolist() == [-128, 8, 10, 10, 12, 12, 127]
    got = prepare(x, "same", takes((1, 1), "uint8", 0.5, 128))
    assert got[:, 0].tolist() == [0, 125, 127, 129, 131, 133, 255]


@given(
    st.floats(-300, 300, width=32),
    st.floats(2**-20, 4, width=32, exclude_min=True),
    st.sampled_from([("int8", -128, 127), ("uint8", 0, 255), ("int16", -32768, 32767)]),
    st.integers(0, 100),
)
def test_quantisation_equals_exact_arithmetic(
    x: float, scale: float, kind: tuple[str, int, int], zero_point: int
) -> None:
    dtype, low, high = kind
    exact = round(Fraction(x) / Fraction(scale)) + zero_point  # round() of a Fraction: half even
    got = prepare(np.array([[x]], np.float32), "same", takes((1, 1), dtype, scale, zero_point))
    assert got.item() == min(max(exact, low), high)


def test_pixels() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(256, 1)
    raw = prepare(pixels, "same", takes((1, 1), "uint8", 1 / 128, 128))
    assert np.array_equal(raw, pixels)  # already the model's own type
    signed = prepare(pixels, "same", takes((1, 1), "int8", 1.0, -128))
    assert np.array_equal(signed.astype(int), pixels.astype(int) - 128)
    floats = prepare(pixels, "same", takes((1, 1)))
    assert floats.dtype == np.float32
    assert np.array_equal(floats, pixels)


def test_token_ids() -> None:
    ids = np.array([[1, 70000]], np.int64)
    got = prepare(ids, "same", takes((1, 2), "int32"))
    assert got.dtype == np.int32
    assert got.tolist() == [[1, 70000]]
    for wrong, dtype in ((ids, "int16"), (ids.astype(np.float32), "int32"), (ids, "bool")):
        with pytest.raises(InputError) as caught:
            prepare(wrong, "same", takes((1, 2), dtype))
        assert caught.value.id == "E-INPUT-DTYPE"


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        prepare(PICTURES, "same", takes((1, 4, 5, 3), "bfloat16"))
    assert caught.value.id == "E-INPUT-DTYPE"


def test_equal_inputs_have_equal_bytes() -> None:
    variants = [
        PICTURES,
        np.asfortranarray(PICTURES),
        PICTURES.astype(">f4"),
        np.repeat(PICTURES, 2, axis=0)[::2],
    ]
    hashes = {hashlib.sha256(npy_bytes(v)).hexdigest() for v in variants}
    assert len(hashes) == 1
    assert len({npy_bytes(v) for v in (PICTURES, PICTURES + 1, PICTURES[:1])}) == 3
    back = np.load(io.BytesIO(npy_bytes(variants[2])), allow_pickle=False)
    assert np.array_equal(back, PICTURES)
    assert back.dtype == np.dtype("<f4")


def test_big_endian_samples_give_little_endian_tensors() -> None:
    for dtype, info in ((">f4", takes((1, 2))), (">i4", takes((1, 2), "int32"))):
        got = prepare(np.array([[1, 2]], dtype), "same", info)
        assert got.dtype.str[0] == "<"
        assert got.tolist() == [[1, 2]]
