"""What quantisation does to each layer, on a net whose range is then spoilt on purpose."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from device_worker.wire import RuntimeSpec
from orchestrator.layers import taps, tflite
from orchestrator.layers.graph import Array, Lattice, NotLocalisableError
from orchestrator.layers.taps import CASCADE, RANGE_COLLAPSE, UNSOUND, Taps
from orchestrator.layers.taps_tflite import TfliteSubject
from tests.support.tiny import MODELS, QUICKSTART
from tests.unit.layers.run import Here

SIDE = Here(RuntimeSpec("litert"))
PARENT = (MODELS / "digits_ds.fp32.tflite").read_bytes()
FILE = (MODELS / "digits_ds.int8.tflite").read_bytes()


@cache
def digits() -> Array:
    """float32 [6, 1, 32, 32, 1] as the parent takes them."""
    with np.load(QUICKSTART / "digits_32x32.npz") as arrays:
        found: Array = arrays["x"][:6].astype(np.float32).reshape(6, 1, 32, 32, 1)
    return found


@cache
def tap(file: bytes = FILE, gain: float = 1.0) -> Taps:
    graph = tflite.read(file)
    lattice = graph.lattices[graph.inputs[0]]
    real = digits() * np.float32(gain)
    codes = np.rint(real / lattice.scale) + lattice.zero_point
    given = np.clip(codes, -128, 127).astype(np.int8)
    return taps.tap(TfliteSubject(file, PARENT, SIDE), [given], [real])


def narrowed(operator: int, by: float) -> bytes:
    """The file as a calibration that saw only ``1 / by`` of the operator's range makes it."""
    model = schema.ModelT.InitFromPackedBuf(FILE, 0)
    graph = model.subgraphs[0]
    grid = graph.tensors[graph.operators[operator].outputs[0]].quantization
    grid.scale = [float(grid.scale[0]) / by]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_sound_model_has_no_finding_and_its_errors_add_up() -> None:
    found = tap()
    assert found.findings == ()
    assert [t.index for t in found.taps] == [None, *range(len(found.taps) - 1)]
    inputs, first = found.taps[:2]
    # The first operator reads the golden inputs in any case.
    assert first.local == first.accumulated
    assert inputs.accumulated.rmse_scale is not None
    assert inputs.accumulated.rmse_scale <= 0.5
    last = found.taps[-1]
    assert last.local is not None
    assert last.local.sqnr_db is not None
    assert last.accumulated.sqnr_db is not None
    assert last.local.sqnr_db > last.accumulated.sqnr_db


def test_inputs_beyond_the_calibrated_range_collapse_at_the_input() -> None:
    found = tap(gain=3.0)
    assert (found.findings[0].name, found.findings[0].tap) == (RANGE_COLLAPSE, 0)
    assert found.taps[0].index is None


def test_one_sample_out_of_range_is_no_collapse() -> None:
    """Its values stand or fall together: of few elements they are soon more than one percent."""
    sound = tap().taps[-1]

    def named(outside: tuple[int, ...], n: int) -> list[str]:
        own = replace(sound.accumulated, n=n)
        return [f.name for f in taps.findings([replace(sound, local=own, outside=outside)])]

    assert named((0, 4, 0, 0, 0, 0, 0, 0), 80) == []
    assert named((1, 4, 0, 0, 0, 0, 0, 0), 80) == []
    assert named((1, 1, 1, 1, 1, 0, 0, 0), 80) == [RANGE_COLLAPSE]
    assert named((10, 1, 3, 0, 0, 0, 0, 0), 80_000) == []


def test_little_signal_is_no_unsound_operator() -> None:
    """Logits near zero have few steps of signal, and rounding alone leaves less than 20 dB."""
    last = tap().taps[-1]
    own = last.local
    assert own is not None

    def named(rmse: float | None, db: float = 15.0) -> list[str]:
        local = replace(own, sqnr_db=db, rmse_scale=rmse)
        return [f.name for f in taps.findings([replace(last, local=local)])]

    assert named(0.8) == []
    assert named(4.9) == [UNSOUND]
    assert named(None) == [UNSOUND]  # a float operator has no steps and nothing to round
    assert named(4.9, db=25.0) == []


def test_a_wrong_calibration_range_is_found_where_it_begins() -> None:
    operator = 4
    found = tap(narrowed(operator, 6.0))
    begins = {f.name: found.taps[f.tap].index for f in found.findings}
    assert begins == {RANGE_COLLAPSE: operator, CASCADE: operator}
    clipped = found.taps[operator + 1]
    assert (clipped.accumulated.clip_excess or 0) > taps.CLIP


def test_a_parent_with_other_operators_is_none() -> None:
    other = (MODELS / "digits_cnn.fp32.tflite").read_bytes()
    with pytest.raises(NotLocalisableError, match="FP32 parent"):
        TfliteSubject(FILE, other, SIDE)


def test_json_has_no_infinity() -> None:
    import json

    json.dumps(tap().to_json(), allow_nan=False)


def test_lattices_are_read_from_the_file() -> None:
    graph = tflite.read(FILE)
    assert set(graph.inputs) <= set(graph.lattices)
    assert all(isinstance(x, Lattice) and x.scale > 0 for x in graph.lattices.values())
    assert tflite.read(PARENT).lattices == {}
