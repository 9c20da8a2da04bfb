"""`assay variance --by layer`: what quantisation does to each layer, on every row that differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Done, assay
from tests.support.tiny import MODELS, Tiny


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two units alike; a TFLite file under two kernel sets; an ONNX file with a TFLite parent."""
    tiny = Tiny(tmp_path_factory.mktemp("by-layer"))
    tiny.matrix["models"][0]["fp32"] = str(MODELS / "digits_cnn.fp32.tflite")
    tiny.matrix["models"][0]["files"] = [
        {"name": "int8", "path": str(MODELS / "digits_cnn.int8.tflite")},
        {"name": "u8s8", "path": str(MODELS / "digits_cnn.u8s8.onnx"), "layout": "nchw"},
    ]
    tiny.matrix["runtimes"] = [
        {"name": "lite", "runtime": "litert"},
        {"name": "ref", "runtime": "litert", "kernels": "reference"},
        {"name": "ort", "runtime": "onnxruntime"},
    ]
    tiny.devices.append(tiny.device("spare"))
    tiny.inputs["limit"] = 60
    assert assay("run", tiny.write(), store=tiny.folder / "store").code in (0, 5)
    return tiny.folder / "store"


def by_layer(store: Path, *options: str) -> Done:
    return assay("variance", "--by", "layer", *options, store=store)


@pytest.fixture(scope="module")
def sets(store: Path) -> dict[str, Any]:
    found = by_layer(store, "--json").json
    assert (found["schema"], found["by"]) == ("assay.variance/1", "layer")
    return {one["file"]: one for one in found["sets"]}


def test_every_distinct_row_has_its_layers(sets: dict[str, Any]) -> None:
    rows = {f"{r['device']}/{r['runtime']}": r for r in sets["int8"]["rows"]}
    assert set(rows) == {"bench/lite", "bench/ref", "spare/lite", "spare/ref"}
    assert len(sets["int8"]["samples"]) == 8
    for runtime in ("lite", "ref"):
        seen, same = rows[f"bench/{runtime}"], rows[f"spare/{runtime}"]
        assert (seen["reproduced"], seen["problem"], seen["findings"]) == (True, None, [])
        assert (same["same_as"], same["taps"]) == (seen["id"], [])
        assert all(tap["local"]["sqnr_db"] > 20 for tap in seen["taps"][1:])
    mine, theirs = (
        [t["accumulated"]["sqnr_db"] for t in rows[f"bench/{r}"]["taps"]] for r in ("lite", "ref")
    )
    assert mine != theirs
    assert mine == pytest.approx(theirs, abs=1.0)


def test_it_is_what_layers_says(store: Path, sets: dict[str, Any]) -> None:
    """Of the same samples: those on which the two rows are furthest apart."""
    pair = ("bench/lite", "bench/ref")
    (one,) = by_layer(store, "--pair", *pair, "--json").json["sets"]
    assert {f"{r['device']}/{r['runtime']}" for r in one["rows"]} == set(pair)
    told = assay("layers", *pair, "--taps", "--json", store=store).json
    assert one["samples"] == told["samples"]
    assert one["rows"][0]["taps"] == told["taps"]["taps"]


def test_a_row_without_layers_says_why(store: Path, sets: dict[str, Any]) -> None:
    assert all("another format (tflite, not onnx)" in r["problem"] for r in sets["u8s8"]["rows"])
    by_layer(store, "--pair", "bench/ort", "spare/ort").refused(
        5, "E-VARIANCE-LAYERS", "another format"
    )
    by_layer(store, "--pair", "bench/lite", "nobody").refused(2, "E-VARIANCE-PAIR", "nobody")


@pytest.mark.parametrize("options", [("--across-runs",), ("--samples", "0")])
def test_what_cannot_be_asked_is_one_line(store: Path, options: tuple[str, ...]) -> None:
    by_layer(store, *options).refused(2, "E-USAGE", "--by layer")


def test_the_text_has_a_line_for_each_layer(store: Path, sets: dict[str, Any]) -> None:
    lines = by_layer(store).out.splitlines()
    heading = next(line for line in lines if "bench/lite" in line)
    assert "bench/ref" in heading
    assert "spare" not in heading
    layers = [line for line in lines if " CONV_2D " in line]
    assert len(layers) == 2
    assert any("spare/lite: bit-identical to bench/lite" in line for line in lines)
