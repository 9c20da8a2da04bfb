"""Taps of ONNX files: against ONNX Runtime's own figures, and on ranges spoilt on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from device_worker.wire import RuntimeSpec
from orchestrator.diagnosis import taps
from orchestrator.diagnosis.pair import Side
from orchestrator.diagnosis.taps import CASCADE, RANGE_COLLAPSE, UNSOUND, Taps
from orchestrator.diagnosis.taps_onnx import OnnxSubject
from orchestrator.models.graph import Array, NotLocalisableError
from tests.support.integers import Reference
from tests.support.isa import EXACT, PAIRS, Core
from tests.support.probing import Probing
from tests.support.qdq_debug import Bare, sqnr
from tests.support.tiny import MODELS, QUICKSTART
from tests.unit.diagnosis.build import parent, residual, samples
from tests.unit.diagnosis.run import Here

SIDE = Here(RuntimeSpec("onnxruntime"))
VNNI = Reference(EXACT, SIDE)
"""On any CPU: this runtime's plans, and in integers what exact products make of them."""
PARENT = (MODELS / "digits_ds.fp32.onnx").read_bytes()
FILES = {name: (MODELS / f"digits_ds.{name}.onnx").read_bytes() for name in ("u8s8", "u8u8")}


@cache
def digits(count: int = 6) -> Array:
    """float32 [count, 1, 1, 32, 32] as file and parent take them."""
    with np.load(QUICKSTART / "digits_32x32.npz") as arrays:
        found: Array = arrays["x"][:count].astype(np.float32).reshape(count, 1, 1, 32, 32)
    return found


def tap(file: bytes, gain: float = 1.0, side: Side = SIDE) -> Taps:
    real = digits() * np.float32(gain)
    return taps.tap(OnnxSubject(file, PARENT, side), [real], [real])


@pytest.fixture(scope="module")
def side(core: Core, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    """ONNX Runtime on a CPU of each kind."""
    if core.real:
        yield SIDE
        return
    probing = Probing(
        tmp_path_factory.mktemp("device"), core.python(tmp_path_factory.mktemp("cpu"))
    )
    with probing.session:
        yield probing


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
    found = tap(FILES[file], side=VNNI if file == "u8s8" else SIDE)
    assert any(t.kind == "QLinearConv" for t in found.taps)
    assert found.findings == ()
    for each in found.taps[1:]:
        assert each.accumulated.sqnr_db == pytest.approx(theirs[each.twin], abs=0.5), each
        assert each.local is not None
        assert (each.local.sqnr_db or 0) > 20


@pytest.mark.parametrize("file", FILES)
def test_every_operator_computes_what_the_file_means(file: str) -> None:
    """Integer kernels, channels last, beside the Q/DQ file's own operators in float."""
    for each in tap(FILES[file], side=VNNI if file == "u8s8" else SIDE).taps[1:]:
        assert each.arithmetic is not None, each
        assert each.arithmetic.max_steps <= 0.51, each


def test_a_convolution_whose_pairs_saturate_is_unsound_and_says_how_far() -> None:
    found = tap(FILES["u8s8"], side=Reference(PAIRS, SIDE))
    assert [(f.name, found.taps[f.tap].twin) for f in found.findings] == [(UNSOUND, "01_clip")]
    assert found.findings[0].why.startswith("7.81 % of 24,576 codes lie over 2 steps")
    assert found.findings[0].why.endswith("up to 101")


@pytest.mark.isa
def test_a_cpu_of_either_kind_answers_to_the_bit_as_is_computed(core: Core, side: Side) -> None:
    """So what the tests above ask of the reference holds for the CPU that it stands for.

    What is in float is the CPU's own on both sides: its last bits depend on more than the kind.
    """
    found = tap(FILES["u8s8"], side=side)
    assert found.taps == tap(FILES["u8s8"], side=Reference(core.kind, side)).taps
    assert bool(found.findings) == (core.kind == PAIRS)


def test_a_kernel_with_other_weights_is_unsound_where_it_has_them() -> None:
    """The operator alone is spoilt, as a kernel would, and not the file's own in float."""
    file = FILES["u8u8"]

    def spoil(model: bytes) -> bytes:
        graph = onnx.load_from_string(model)
        for node in graph.graph.node if graph.graph.name == "alone" else ():
            if node.op_type == "QLinearConv" and node.name.startswith("08"):
                (kernel,) = (t for t in graph.graph.initializer if t.name == node.input[3])
                values = numpy_helper.to_array(kernel)
                kernel.CopyFrom(numpy_helper.from_array(255 - values, kernel.name))
        return bytes(graph.SerializeToString())

    whole = tap(file)
    spoilt = next(t for t in whole.taps if t.twin == "09_clip")
    side = Here(RuntimeSpec("onnxruntime"), spoil=spoil)
    found = taps.tap(OnnxSubject(file, PARENT, side), [digits()], [digits()])
    begins = {f.name: found.taps[f.tap].twin for f in found.findings}
    assert begins.get(UNSOUND) == spoilt.twin


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


def activated(quantised: bool) -> bytes:
    """conv → relu, the ReLU still in the Q/DQ file: an integer kernel takes it in."""
    random = np.random.RandomState(3)
    weights = random.randint(-127, 128, (4, 4, 3, 3)).astype(np.int8)
    step = np.float32(0.01)
    constants = {"w": weights * step, "w_q": weights, "ws": step, "wz": np.int8(0)}
    constants |= {"xs": np.float32(0.05), "xz": np.uint8(128), "rs": np.float32(0.25)}
    constants["rz"] = np.uint8(0)
    source, kernel, nodes = "x", "w", []
    if quantised:
        source, kernel = "x_dq", "w_dq"
        nodes = [
            make_node("QuantizeLinear", ["x", "xs", "xz"], ["x_q"], "xQ"),
            make_node("DequantizeLinear", ["x_q", "xs", "xz"], ["x_dq"], "xDQ"),
            make_node("DequantizeLinear", ["w_q", "ws", "wz"], ["w_dq"], "wDQ"),
        ]
    nodes.append(make_node("Conv", [source, kernel], ["conv"], "conv", pads=[1, 1, 1, 1]))
    nodes.append(make_node("Relu", ["conv"], ["relu"], "relu"))
    last = "relu"
    if quantised:
        nodes.append(make_node("QuantizeLinear", ["relu", "rs", "rz"], ["relu_q"], "rQ"))
        nodes.append(make_node("DequantizeLinear", ["relu_q", "rs", "rz"], ["relu_dq"], "rDQ"))
        last = "relu_dq"
    nodes.append(make_node("Identity", [last], ["y"], "end"))
    ends = [make_tensor_value_info(t, TensorProto.FLOAT, [1, 4, 6, 6]) for t in ("x", "y")]
    kept = [t for node in nodes for t in node.input if t in constants]
    tensors = [numpy_helper.from_array(np.asarray(constants[t]), t) for t in dict.fromkeys(kept)]
    graph = make_graph(nodes, "activated", ends[:1], ends[1:], tensors)
    model = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_codes_behind_an_activation_that_was_taken_in_are_not_those_before_it() -> None:
    x = samples(4)
    found = taps.tap(OnnxSubject(activated(True), activated(False), VNNI), [x], [x])
    last = found.taps[-1]
    assert last.twin in ("relu", "y")
    assert (last.accumulated.sqnr_db or 0) > 30
    assert "conv" not in [t.twin for t in found.taps if t.kind == "QLinearConv"]


@pytest.mark.isa
def test_padded_signed_weights_too_are_added_as_the_kind_of_cpu_does(
    core: Core, side: Side
) -> None:
    x, file = samples(4), activated(True)
    found, computed = (
        taps.tap(OnnxSubject(file, activated(False), s), [x], [x])
        for s in (side, Reference(core.kind, side))
    )
    assert found.taps == computed.taps


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
