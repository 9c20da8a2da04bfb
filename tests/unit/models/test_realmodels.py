"""True and false pairs that nobody here made; what is true of them is in their READMEs.

Of pairs that the READMEs say nothing of, the expected answer is what their weights show: the sine
pair shares an architecture and no weights, and the submitters' QDQ files agree with their parents
to half a step once every channel may have a factor.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.models.lineage_child import answer

FOLDER = os.environ.get("ASSAY_REALMODELS", "")
MODELS = Path(FOLDER or "missing")
KWS, CIFAR, AD, SINE, MOBILE, CORAL, ODD = (
    MODELS / name
    for name in (
        "kws_dscnn",
        "cifar10_resnet8",
        "ad01_toycar",
        "hello_sine",
        "mobilenet_v1_025_imagenet",
        "coral_mobilenet_v1_025_128",
        "specimens",
    )
)

pytestmark = [
    pytest.mark.realmodels,
    pytest.mark.skipif(not FOLDER, reason="$ASSAY_REALMODELS is not set"),
]

PAIRS = [
    (KWS / "kws_savedmodel_int8.tflite", KWS / "kws_savedmodel_fp32.tflite", "nearest-step"),
    (KWS / "kws_ref_model_int8.tflite", KWS / "kws_savedmodel_fp32.tflite", "unrelated"),
    (KWS / "kws_ref_model_int8.tflite", KWS / "kws_ref_model_float32.tflite", "not-fp32"),
    (KWS / "kws_savedmodel_int8.tflite", KWS / "kws_ref_model_float32.tflite", "not-fp32"),
    (KWS / "kws_savedmodel_int8.tflite", KWS / "kws_ref_model_int8.tflite", "not-fp32"),
    (KWS / "kws_savedmodel_fp32.tflite", KWS / "kws_savedmodel_int8.tflite", "not-fp32"),
    (KWS / "kws_savedmodel_fp32.tflite", KWS / "kws_savedmodel_fp32.tflite", "inconclusive"),
    (CIFAR / "resnet8_int8.tflite", CIFAR / "resnet8_fp32.tflite", "nearest-step"),
    (CIFAR / "resnet8_int8.tflite", CIFAR / "resnet8_fp32_nchw.onnx", "nearest-step"),
    (CIFAR / "resnet8_int8.tflite", KWS / "kws_savedmodel_fp32.tflite", "unrelated"),
    (AD / "ad01_int8.tflite", AD / "ad01_fp32.tflite", "nearest-step"),
    (SINE / "hello_world_int8.tflite", SINE / "hello_world_fp32.tflite", "unrelated"),
    (
        MOBILE / "mobilenet_v1_0.25_224_quant_uint8.tflite",
        MOBILE / "mobilenet_v1_0.25_224_fp32.tflite",
        "derived",
    ),
    (
        CORAL / "mobilenet_v1_0.25_128_quant.tflite",
        MOBILE / "mobilenet_v1_0.25_224_fp32.tflite",
        "unrelated",
    ),
    (
        CORAL / "mobilenet_v1_0.25_128_quant_edgetpu.tflite",
        MOBILE / "mobilenet_v1_0.25_224_fp32.tflite",
        "inconclusive",
    ),
    (ODD / "person_detect_int8.tflite", MOBILE / "mobilenet_v1_0.25_224_fp32.tflite", "unrelated"),
    (ODD / "har_dynamic_range.tflite", ODD / "har_fp32.tflite", "nearest-step"),
    (ODD / "text_classifier_int8.tflite", ODD / "text_classifier_fp32.tflite", "nearest-step"),
    (ODD / "micro_speech_int8.tflite", ODD / "har_fp32.tflite", "unrelated"),
]
EQUALISED = [
    (KWS / "kws_ref_model_int8_qdq.onnx", KWS / "kws_savedmodel_fp32.tflite"),
    (CIFAR / "resnet8_int8_qdq.onnx", CIFAR / "resnet8_fp32.tflite"),
    (CIFAR / "resnet8_int8_qdq.onnx", CIFAR / "resnet8_fp32_nchw.onnx"),
    (AD / "ad01_int8_qdq.onnx", AD / "ad01_fp32.tflite"),
]


@pytest.mark.parametrize(("int8", "fp32", "verdict"), PAIRS, ids=lambda p: getattr(p, "stem", p))
def test_pairs_are_told_by_their_weights(int8: Path, fp32: Path, verdict: str) -> None:
    got = answer(str(int8), str(fp32))
    assert got["verdict"] == verdict, got["reason"]
    if verdict == "nearest-step":
        assert got["within"] == got["weights"] > 0
        assert got["biases"] == got["biases_within"]
        assert got["worst"] <= 0.50001
        assert got["floats"] == got["floats_equal"]
    if verdict == "unrelated" and got["matched"] == got["tensors"]:
        assert abs(got["correlation"]) < 0.15


@pytest.mark.parametrize(("int8", "fp32"), EQUALISED, ids=lambda p: p.stem)
def test_submitters_files_were_equalised_before_they_were_quantised(int8: Path, fp32: Path) -> None:
    got = answer(str(int8), str(fp32))
    assert got["verdict"] == "derived"
    assert got["within"] < 0.25 * got["weights"]
    assert got["equalised"] > 0.99 * got["weights"]
    assert "equalisation" in got["reason"]


def test_training_with_quantisation_is_not_taken_for_equalisation() -> None:
    names = (f"mobilenet_v1_0.25_224_{x}.tflite" for x in ("quant_uint8", "fp32"))
    got = answer(*(str(MOBILE / name) for name in names))
    assert got["equalised"] < 0.7 * got["weights"]
    assert "trained with quantisation" in got["reason"]
