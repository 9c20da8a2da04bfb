"""What quantisation does to each layer, on a net whose range is then spoilt on purpose."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from device_worker.wire import RuntimeSpec
from orchestrator.diagnosis import taps
from orchestrator.diagnosis.pair import Trial
from orchestrator.diagnosis.taps import CASCADE, RANGE_COLLAPSE, UNSOUND, Taps
from orchestrator.diagnosis.taps_tflite import TfliteSubject
from orchestrator.fingerprint.pack import probes
from orchestrator.models import cut_tflite
from orchestrator.models.graph import Array, Lattice, NotLocalisableError
from orchestrator.variance.lsb_error import Distance, StepSums
from tests.support.tiny import MODELS, QUICKSTART
from tests.unit.diagnosis.run import Here

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
def tap(file: bytes = FILE, gain: float = 1.0, side: Here = SIDE) -> Taps:
    graph = cut_tflite.read(file)
    lattice = graph.lattices[graph.inputs[0]]
    real = digits() * np.float32(gain)
    codes = np.rint(real / lattice.scale) + lattice.zero_point
    given = np.clip(codes, -128, 127).astype(np.int8)
    return taps.tap(TfliteSubject(file, PARENT, side), [given], [real])


def narrowed(operator: int, by: float) -> bytes:
    """The file as a calibration that saw only ``1 / by`` of the operator's range makes it.

    Biases behind it are in steps of their input times those of their weights.
    """
    model = schema.ModelT.InitFromPackedBuf(FILE, 0)
    graph = model.subgraphs[0]
    made = graph.operators[operator].outputs[0]
    grid = graph.tensors[made].quantization
    grid.scale = [float(grid.scale[0]) / by]
    for reader in (op for op in graph.operators if op.inputs[0] == made):
        bias = graph.tensors[reader.inputs[2]]
        codes = np.frombuffer(bytes(model.buffers[bias.buffer].data), "<i4")
        model.buffers[bias.buffer].data = np.rint(codes * by).astype("<i4").tobytes()
        bias.quantization.scale = [float(scale) / by for scale in bias.quantization.scale]
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


def test_zeros_that_noise_makes_of_small_values_are_no_saturation() -> None:
    """Zeros become small values as often; of few codes one side is soon ahead by a percent."""
    last = tap().taps[-1]
    assert last.local is not None
    lossy = replace(last, accumulated=replace(last.accumulated, sqnr_db=taps.SQNR_DB - 1))

    def named(saturated: tuple[tuple[int, int], ...], n: int) -> list[str]:
        clipped = replace(last, accumulated=replace(last.accumulated, n=n), saturated=saturated)
        return [f.name for f in taps.findings([clipped, lossy])]

    assert named(((2, 1),) * 6 + ((2, 1), (2, 2)), 192) == []
    assert named(((2, 1),) * 8, 192) == []
    assert named(((8, 7),) * 8, 192) == []
    assert named(((1, 0),) * 8, 192) == [CASCADE]
    assert named(((2, 1),) * 8, 192 * 100) == []
    assert named(((200, 100),) * 8, 192 * 100) == [CASCADE]
    assert named(((100, 0), *((0, 0),) * 7), 800) == []  # one sample is no layer


def test_codes_at_the_ends_are_counted_beside_the_values_there() -> None:
    """Of each sample; a value beyond an end is not at it, one that is no number is nowhere."""
    lattice = Lattice(0.5, 0)
    truth = np.array([[-64, 63.5, 0, 70], [-63.9, 63.4, np.nan, 63.5]], np.float32)
    codes = np.array([[-128, 126, 127, 127], [-127, 127, 127, -128]], np.int8)
    place = taps.Place(0, "RELU", "out", "out", lattice)

    class One:
        row = "one"

        def see(self, inputs: object, golden: object) -> list[taps.Seen]:
            return [taps.Seen(place, truth, codes, None)]

    (found,) = taps.tap(One(), [codes], [truth]).taps
    assert found.saturated == ((2, 1), (0, 1))
    assert found.outside == (1, 0)


def test_every_operator_computes_what_its_own_weights_say() -> None:
    for each in tap().taps[1:]:
        assert each.arithmetic is not None, each
        assert each.local is not None
        assert (each.arithmetic.n, each.arithmetic.far) == (each.local.n, 0)
        assert 0.4 < each.arithmetic.max_steps <= 0.51
    assert tap().taps[0].arithmetic is None


def test_a_coarse_layer_is_not_unsound() -> None:
    """Half of its signal is lost in its steps; its kernel has no part in that."""
    operator = 4
    found = tap(narrowed(operator, 1 / 24))
    coarse = found.taps[operator + 1]
    assert coarse.local is not None
    assert (coarse.local.sqnr_db or 0) < taps.SQNR_DB
    assert coarse.arithmetic is not None
    assert coarse.arithmetic.max_steps <= 0.51
    assert UNSOUND not in [f.name for f in found.findings]


def test_a_kernel_with_other_weights_is_unsound_where_it_has_them() -> None:
    operator = 4
    model = schema.ModelT.InitFromPackedBuf(FILE, 0)
    graph = model.subgraphs[0]
    weights = graph.tensors[graph.operators[operator].inputs[1]]
    held = bytes(model.buffers[weights.buffer].data)
    half = len(held) // 2
    side = Here(RuntimeSpec("litert"), spoil=lambda m: m.replace(held, held[half:] + held[:half]))
    found = tap(side=side)
    arithmetic = found.taps[operator + 1].arithmetic
    assert arithmetic is not None
    why = f"over 2 steps from what its own weights say, up to {arithmetic.max_steps:.3g}"
    unsound = [(f.tap, f.why.split(" lie ")[1]) for f in found.findings if f.name == UNSOUND]
    assert unsound == [(operator + 1, why)]
    assert all(
        t.arithmetic is not None and t.arithmetic.far == 0
        for t in found.taps[1:]
        if t.index != operator
    )


def test_a_code_or_two_of_many_is_no_unsound_operator() -> None:
    last = tap().taps[-1]

    def named(far: int, n: int) -> list[str]:
        off = Distance(n, far, 3.0, 0.3)
        return [f.name for f in taps.findings([replace(last, arithmetic=off)])]

    assert named(0, 80) == []
    assert named(1, 80) == []  # its lower bound is 0.06 %
    assert named(2, 80) == [UNSOUND]
    assert named(20, 80_000) == []
    assert taps.findings([replace(last, arithmetic=None)]) == []


@pytest.mark.parametrize("kernels", ["default", "builtin", "reference"])
def test_of_no_runtime_here_do_codes_lie_far_from_what_the_file_says(kernels: str) -> None:
    """One-operator models of the probe pack: unsigned, with zero points, with activations."""
    side, seen = Here(RuntimeSpec("litert", kernels=kernels)), 0
    for probe in probes("tflite"):
        graph = cut_tflite.read(probe.model)
        lattice = graph.lattices.get(graph.outputs[0])
        if len(graph.operators) != 1 or lattice is None or "QUANTIZE" in graph.operators[0].kind:
            continue
        (meant,) = cut_tflite.meant(probe.model)
        codes = [feed.values() for feed in probe.feeds]
        real = [taps.reals(x, graph.lattices[t]) for t, x in zip(graph.inputs, codes, strict=True)]
        trials = [
            Trial("file", probe.model, tuple(codes)),
            Trial("meant", meant.model, tuple(real)),
        ]
        file, said = side.run(trials)
        sums = StepSums(lattice.scale, lattice.zero_point)
        sums.add(file.outputs[0], said.outputs[0])
        found = sums.distance()
        assert found is not None
        assert found.max_steps < 1, probe.name
        seen += 1
    assert seen > 50


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
    graph = cut_tflite.read(FILE)
    assert set(graph.inputs) <= set(graph.lattices)
    assert all(isinstance(x, Lattice) and x.scale > 0 for x in graph.lattices.values())
    assert cut_tflite.read(PARENT).lattices == {}
