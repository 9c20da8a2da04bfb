"""Taps of ONNX files: against ONNX Runtime's own figures, and on ranges spoilt on purpose."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from device_worker.wire import RuntimeSpec
from orchestrator.layers import taps
from orchestrator.layers.graph import Array, NotLocalisableError
from orchestrator.layers.taps import CASCADE, RANGE_COLLAPSE, Taps
from orchestrator.layers.taps_onnx import OnnxSubject
from tests.support.qdq_debug import Bare, sqnr
from tests.support.tiny import MODELS, QUICKSTART
from tests.unit.layers.build import parent, residual, samples
from tests.unit.layers.run import Here

SIDE = Here(RuntimeSpec("onnxruntime"))
PARENT = (MODELS / "digits_ds.fp32.onnx").read_bytes()
FILES = {name: (MODELS / f"digits_ds.{name}.onnx").read_bytes() for name in ("u8s8", "u8u8")}


@cache
def digits(count: int = 6) -> Array:
    """float32 [count, 1, 1, 32, 32] as file and parent take them."""
    with np.load(QUICKSTART / "digits_32x32.npz") as arrays:
        found: Array = arrays["x"][:count].astype(np.float32).reshape(count, 1, 1, 32, 32)
    return found


def tap(file: bytes, gain: float = 1.0) -> Taps:
    real = digits() * np.float32(gain)
    return taps.tap(OnnxSubject(file, PARENT, SIDE), [real], [real])


def narrowed(tensor: str, by: float) -> bytes:
    """The file as a calibration that saw only ``1 / by`` of the tensor's range makes it."""
    model = onnx.load_from_string(FILES["u8u8"])
    (scale,) = (t for t in model.graph.initializer if t.name == f"{tensor}_scale")
    scale.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(scale) / np.float32(by), scale.name)
    )
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("file", FILES)
def test_of_the_same_arithmetic_every_sqnr_is_onnx_runtimes(file: str) -> None:
    found = taps.tap(OnnxSubject(FILES[file], PARENT, Bare(optimise=False)), [digits()], [digits()])
    mine = {t.twin: t.accumulated.sqnr_db for t in found.taps}
    theirs = sqnr(FILES[file], PARENT, digits())
    assert len(theirs) > 12
    assert set(theirs) <= set(mine)
    for tensor, decibels in theirs.items():
        exact = mine[tensor] == np.inf  # they take an error of 0 for one of 1e-16
        assert decibels > 300 if exact else mine[tensor] == pytest.approx(decibels, abs=1e-4), (
            tensor
        )


@pytest.mark.parametrize("file", FILES)
def test_integer_kernels_are_within_rounding_of_that(file: str) -> None:
    theirs = sqnr(FILES[file], PARENT, digits())
    found = tap(FILES[file])
    assert any(t.kind == "QLinearConv" for t in found.taps)
    assert found.findings == ()
    for each in found.taps[1:]:
        assert each.accumulated.sqnr_db == pytest.approx(theirs[each.twin], abs=0.5), each
        assert each.local is not None
        assert (each.local.sqnr_db or 0) > 20


def test_a_wrong_calibration_range_is_found_where_it_begins() -> None:
    found = tap(narrowed("09_clip", 6.0))
    begins = {f.name: found.taps[f.tap].twin for f in found.findings}
    assert begins == {RANGE_COLLAPSE: "09_clip", CASCADE: "09_clip"}


@pytest.mark.parametrize("optimise", [True, False])
def test_convolutions_that_the_plan_keeps_in_float_are_layers_too(optimise: bool) -> None:
    """On x86 the optimiser leaves those of a residual branch in float, between Q and DQ."""
    x = samples(4)
    found = taps.tap(OnnxSubject(residual(), parent(), Bare(optimise)), [x], [x])
    assert [t.twin for t in found.taps] == ["x", "conv1", "conv2", "add"]
    for each in found.taps[1:]:
        assert each.accumulated.code_utilisation is not None
        assert each.local is not None
        assert each.local.code_utilisation is not None
    if not optimise:
        assert [t.kind for t in found.taps[1:]] == ["Conv", "Conv", "Add"]


def test_inputs_beyond_the_calibrated_range_collapse_at_the_input() -> None:
    found = tap(FILES["u8u8"], gain=3.0)
    assert (found.findings[0].name, found.taps[found.findings[0].tap].kind) == (
        RANGE_COLLAPSE,
        "input",
    )


def test_a_parent_of_other_names_is_none() -> None:
    other = onnx.load_from_string(PARENT)
    constants = {t.name for t in other.graph.initializer}
    for node in other.graph.node:
        node.input[:] = [t if t in constants else f"other_{t}" for t in node.input]
        node.output[:] = [f"other_{t}" for t in node.output]
    for value in (*other.graph.input, *other.graph.output):
        value.name = f"other_{value.name}"
    subject = OnnxSubject(FILES["u8u8"], other.SerializeToString(), SIDE)
    with pytest.raises(NotLocalisableError, match="name"):
        taps.tap(subject, [digits()], [digits()])


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tap(FILES["u8u8"])
    monkeypatch.setattr(taps, "FIRST", 2)
    monkeypatch.setattr(taps, "BLOCK", 1)
    small = tap(FILES["u8u8"])
    for one, other in zip(whole.taps, small.taps, strict=True):
        assert one.accumulated.sqnr_db == pytest.approx(other.accumulated.sqnr_db, abs=1e-9)
        for name, value in vars(one.local or one.accumulated).items():
            found = getattr(other.local or other.accumulated, name)
            assert found == pytest.approx(value, rel=1e-9, abs=1e-9), name
