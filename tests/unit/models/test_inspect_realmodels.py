"""Models and input sets that nobody here made; their facts are those of their READMEs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import InputError
from orchestrator.matrix.model import NpzInputs
from orchestrator.models.inspect import check_compiled, check_parent, inspect, single_input
from orchestrator.staging.dataset import load
from orchestrator.staging.prepare import prepare

FOLDER = os.environ.get("ASSAY_REALMODELS", "")
MODELS = Path(FOLDER or "missing")

pytestmark = [
    pytest.mark.realmodels,
    pytest.mark.skipif(not FOLDER, reason="$ASSAY_REALMODELS is not set"),
]


@pytest.mark.parametrize(
    ("file", "dtype", "shape", "scale", "zero_point"),
    [
        ("kws_dscnn/kws_ref_model_int8.tflite", "int8", (-1, 49, 10, 1), 0.58470, 83),
        ("kws_dscnn/kws_savedmodel_int8.tflite", "int8", (-1, 49, 10, 1), 0.57911, 85),
        ("kws_dscnn/kws_ref_model_int8_qdq.onnx", "float32", (1, 490), None, None),
        ("cifar10_resnet8/resnet8_int8.tflite", "int8", (-1, 32, 32, 3), 1.0, -128),
        ("cifar10_resnet8/resnet8_fp32_nchw.onnx", "float32", (1, 3, 32, 32), None, None),
        ("ad01_toycar/ad01_int8.tflite", "int8", (-1, 640), 0.39101523, 89),
        ("hello_sine/hello_world_int8.tflite", "int8", (-1, 1), 0.02448012, -128),
        (
            "mobilenet_v1_025_imagenet/mobilenet_v1_0.25_224_quant_uint8.tflite",
            "uint8",
            (1, 224, 224, 3),
            1 / 128,
            128,
        ),
        (
            "coral_mobilenet_v1_025_128/mobilenet_v1_0.25_128_quant_edgetpu.tflite",
            "uint8",
            (1, 128, 128, 3),
            1 / 128,
            128,
        ),
        ("specimens/text_classifier_int8.tflite", "int32", (1, 256), None, None),
        ("specimens/audio_preprocessor_int8.tflite", "int16", (1, 480), None, None),
        ("specimens/har_dynamic_range.tflite", "float32", (-1, 128, 3), None, None),
        ("specimens/model_invoking_error.tflite", "uint8", (1, 3), None, None),
        ("specimens/micro_speech_int8.tflite", "int8", (1, 1960), 0.10171568, -128),
    ],
)
def test_inputs_are_those_of_the_readme(
    file: str, dtype: str, shape: tuple[int, ...], scale: float | None, zero_point: int | None
) -> None:
    got = single_input(inspect(MODELS / file))
    assert (got.dtype, got.shape, got.zero_point) == (dtype, shape, zero_point)
    assert got.scale == (None if scale is None else pytest.approx(scale, rel=1e-4))


def test_operators_are_those_of_the_readme() -> None:
    assert inspect(MODELS / "kws_dscnn/kws_ref_model_int8.tflite").operators == {
        "CONV_2D": 5,
        "DEPTHWISE_CONV_2D": 4,
        "AVERAGE_POOL_2D": 1,
        "RESHAPE": 1,
        "FULLY_CONNECTED": 1,
        "SOFTMAX": 1,
    }
    qdq = inspect(MODELS / "kws_dscnn/kws_ref_model_int8_qdq.onnx").operators
    assert (qdq["Conv"], qdq["QuantizeLinear"], qdq["DequantizeLinear"]) == (9, 12, 32)
    assert sum(qdq.values()) == 58
    edge = inspect(MODELS / "coral_mobilenet_v1_025_128/face_detector_quantized_edgetpu.tflite")
    assert edge.operators == {"edgetpu-custom-op": 1, "DEQUANTIZE": 2}
    assert [o.scale is not None for o in edge.outputs] == [True, True]
    assert "SignalPCAN" in inspect(MODELS / "specimens/audio_preprocessor_int8.tflite").operators


def test_several_inputs_and_outputs() -> None:
    toy = inspect(MODELS / "coral_mobilenet_v1_025_128/split_concat.tflite")
    assert (len(toy.inputs), len(toy.outputs)) == (3, 5)
    with pytest.raises(InputError) as caught:
        single_input(toy)
    assert caught.value.id == "E-MODEL-INPUTS"


def test_a_model_that_every_host_runtime_refuses_can_be_described() -> None:
    """So that each runtime says on the device why it does not run it, and the rest runs."""
    found = inspect(MODELS / "specimens/person_detect_int8.tflite")
    (taken,), (given,) = found.inputs, found.outputs
    assert (taken.dtype, taken.shape, taken.zero_point) == ("int8", (1, 96, 96, 1), -1)
    assert (given.dtype, given.shape) == ("int8", (1, 2))
    assert sum(found.operators.values()) == 31


CORAL = MODELS / "coral_mobilenet_v1_025_128"


@pytest.mark.parametrize(
    ("file", "partitions", "size"),
    [
        ("mobilenet_v1_0.25_128_quant", 0, 0),
        ("mobilenet_v1_0.25_128_quant_edgetpu", 1, 778324),
        ("split_concat_edgetpu", 1, 57380),
        ("face_detector_quantized_edgetpu", 1, 405583),
    ],
)
def test_what_the_edge_tpu_compiler_took(file: str, partitions: int, size: int) -> None:
    found = inspect(CORAL / f"{file}.tflite")
    assert found.operators.get("edgetpu-custom-op", 0) == partitions
    assert (found.compiled, found.edgetpu_bytes) == (bool(partitions), size)


def test_a_compiled_file_and_its_source() -> None:
    source, compiled = (
        inspect(CORAL / f"mobilenet_v1_0.25_128_quant{x}.tflite") for x in ("", "_edgetpu")
    )
    check_compiled(compiled, source)
    with pytest.raises(InputError, match=r"not uint8 \[1x128x128x3\] scale 0.0078125") as caught:
        check_compiled(inspect(CORAL / "face_detector_quantized_edgetpu.tflite"), source)
    assert caught.value.id == "E-MODEL-COMPILED"


@pytest.mark.parametrize(
    ("child", "parent", "says"),
    [
        ("kws_dscnn/kws_savedmodel_int8", "kws_dscnn/kws_savedmodel_fp32", None),
        ("cifar10_resnet8/resnet8_int8", "cifar10_resnet8/resnet8_fp32", None),
        ("ad01_toycar/ad01_int8", "ad01_toycar/ad01_fp32", None),
        ("hello_sine/hello_world_int8", "hello_sine/hello_world_fp32", None),
        ("specimens/text_classifier_int8", "specimens/text_classifier_fp32", None),
        ("kws_dscnn/kws_ref_model_int8", "kws_dscnn/kws_ref_model_float32", "5 of its tensors"),
        ("kws_dscnn/kws_ref_model_int8", "cifar10_resnet8/resnet8_fp32", "3072 elements"),
    ],
)
def test_parents(child: str, parent: str, says: str | None) -> None:
    pair = inspect(MODELS / f"{child}.tflite"), inspect(MODELS / f"{parent}.tflite")
    if says is None:
        check_parent(*pair)
        return
    with pytest.raises(InputError) as caught:
        check_parent(*pair)
    assert caught.value.id == "E-FP32-PARENT"
    assert says in str(caught.value)


def test_the_keyword_set_gives_the_published_counts() -> None:
    """kws_ref_model_int8_qdq.onnx: 876 of 960 right, scores as the README's, bit for bit."""
    import onnxruntime

    folder = MODELS / "kws_dscnn"
    data = load(
        NpzInputs(
            name="k",
            type="npz",
            path=folder / "eval_features.npz",
            array="features",
            labels="labels",
        )
    )
    model = folder / "kws_ref_model_int8_qdq.onnx"
    tensor = prepare(data.x, "flat", single_input(inspect(model)))
    assert tensor.shape == (960, 490)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    scores = np.concatenate([session.run(None, {name: row[None]})[0] for row in tensor])
    assert data.labels is not None
    right = int((scores.argmax(axis=1) == data.labels).sum())
    with np.load(folder / "reference_outputs.npz") as reference:
        if not np.array_equal(scores, reference["int8_qdq_onnx"]):
            pytest.skip(f"this CPU's kernels differ from the README's host ({right} right)")
    assert right == 876


def test_pixels_are_quantised_as_the_readme_says() -> None:
    with np.load(MODELS / "cifar10_resnet8/eval_images.npz") as archive:
        images = archive["images"]
    int8 = prepare(
        images, "same", single_input(inspect(MODELS / "cifar10_resnet8/resnet8_int8.tflite"))
    )
    assert np.array_equal(int8.astype(int), images.astype(int) - 128)
    onnx_file = inspect(MODELS / "cifar10_resnet8/resnet8_fp32_nchw.onnx")
    nchw = prepare(images, "nchw", single_input(onnx_file))
    assert np.array_equal(nchw.transpose(0, 2, 3, 1), images)
