"""Of a fingerprint, what speaks of a model; of two, what tells them apart."""

from __future__ import annotations

from orchestrator.fingerprint.relevant import apart, relevant

FAMILIES = (
    *("CONV_2D int8 per-channel", "CONV_2D uint8 per-tensor", "SOFTMAX float32", "ADD int8"),
    *("QLinearConv U8S8 per-channel", "QDQ Conv U8U8 per-tensor", "denormals"),
)


def test_a_model_meets_the_families_of_its_operators_and_its_type() -> None:
    tflite = relevant(FAMILIES, {"CONV_2D", "SOFTMAX"}, "int8")
    assert tflite == {"CONV_2D int8 per-channel", "SOFTMAX float32"}
    assert relevant(FAMILIES, {"CONV_2D"}, "uint8") == {"CONV_2D uint8 per-tensor"}
    planned = relevant(FAMILIES, {"Conv", "com.microsoft.QLinearConv"}, "float32")
    assert planned == {"QLinearConv U8S8 per-channel", "QDQ Conv U8U8 per-tensor"}


def family(sha: str, mode: str) -> dict[str, str]:
    return {"sha256": sha * 64, "mode": mode}


def test_what_tells_two_apart_has_two_names() -> None:
    a = {"pack": "p", "families": {"x": family("1", "half-even"), "y": family("2", "double x1")}}
    b = {"pack": "p", "families": {"x": family("3", "half-up"), "y": family("4", "double x1")}}
    assert apart(a, a) == ({}, {})
    left, right = apart(a, b)
    assert left == {"x": "half-even", "y": "double x1 #222222"}
    assert right == {"x": "half-up", "y": "double x1 #444444"}
    assert apart(a, b | {"pack": "another"}) == ({}, {})
