"""Causes on the virtual boards, each found beforehand by hand and without Assay.

"host" is this machine: what is asked of it holds for an x86-64 with VNNI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import assay
from tests.support.judged import VNNI, Judged
from tests.support.realmodels import INVENTORIES, MODELS, write
from tests.support.tiny import MODELS as QUICKSTART_MODELS
from tests.support.tiny import QUICKSTART

pytestmark = [pytest.mark.farm, pytest.mark.realmodels, pytest.mark.timeout(600)]

CORAL = MODELS / "coral_mobilenet_v1_025_128"
FILES: dict[str, tuple[Path, str]] = {
    "mobilenet.u8": (CORAL / "mobilenet_v1_0.25_128_quant.tflite", "same"),
    "digits.u8s8": (QUICKSTART_MODELS / "digits_ds.u8s8.onnx", "nchw"),
}
INPUTS: list[dict[str, Any]] = [
    {
        "name": "mobilenet",
        "path": str(CORAL / "eval_images_128.npz"),
        "array": "images",
        "labels": "labels",
        "limit": 20,
    },
    {
        "name": "digits",
        "path": str(QUICKSTART / "digits_32x32.npz"),
        "array": "x",
        "labels": "y",
        "limit": 60,
    },
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("causes")
    models = [
        {
            "name": name.partition(".")[0],
            "task": {"type": "classification"},
            "inputs": name.partition(".")[0],
            "files": [{"name": name.partition(".")[2], "path": str(path), "layout": layout}],
        }
        for name, (path, layout) in FILES.items()
    ]
    models[1]["fp32"] = {"path": str(QUICKSTART_MODELS / "digits_ds.fp32.onnx"), "layout": "nchw"}
    inputs = [{"type": "npz", **dataset} for dataset in INPUTS]
    matrix = write(folder, ["host", "qemu-a53", "qemu-haswell"], models=models, inputs=inputs)
    wanted = (
        *("host-mobilenet.u8-*-litert", "qemu-a53-mobilenet.u8-*-litert"),
        *("host-digits.u8s8-*-ort", "qemu-haswell-digits.u8s8-*-ort"),
    )
    select = [part for glob in wanted for part in ("--select", glob)]
    done = assay("run", matrix, *select, "--json", store=folder / "store", timeout=400)
    return Judged(done, folder / "store")


def explain(ran: Judged, board: str, *options: str) -> dict[str, Any]:
    store: Path = ran.store
    done = assay("explain", "-", "host", board, *options, "--json", store=store, timeout=300)
    assert done.code == 0, done.err
    (found,) = done.json["pairs"]
    assert isinstance(found, dict)
    return found


def needs_vnni(ran: Judged) -> None:
    if not VNNI & ran.isa("host"):
        pytest.skip("this host has no VNNI")


def test_mobilenet_on_a_cortex_a53_rounds_its_convolutions_otherwise(ran: Judged) -> None:
    """XNNPACK narrows the accumulator there before it multiplies: 15 of 15 CONV_2D, no other."""
    found = explain(ran, "qemu-a53", "--layers")
    assert (found["mechanism"], found["factors"]) == ("rounding", ["core"])
    # The output is up to 41 steps off; each operator alone never is by more than one.
    assert found["difference"]["max_lsb"] > 1
    assert found["confidence"] == "likely"
    assert "differ on equal inputs: 15 CONV_2D, max 1 LSB" in found["because"]
    layers = found["layers"]
    assert layers["first"] == 0
    assert {layers["operators"][i]["kind"] for i in layers["guilty"]} == {"CONV_2D"}


def test_the_probes_name_the_rounding(ran: Judged) -> None:
    for board, inventory in (("host", "local"), ("qemu-a53", "virtual-farm")):
        where = ("-i", str(INVENTORIES / f"{inventory}.yaml"))
        asked = ("fingerprint", board, *where, "--runtime", "litert/default")
        assert assay(*asked, store=ran.store, timeout=200).code == 0
    found = explain(ran, "qemu-a53")
    assert (found["mechanism"], found["confidence"]) == ("rounding", "likely")
    assert [x for x in found["because"] if "CONV_2D uint8" in x and x.endswith("/ rndnu16")]
    assert not [x for x in found["because"] if "DEPTHWISE" in x and "rndnu16" in x]


def test_layer_by_layer_the_saturating_convolution_is_unsound(ran: Judged) -> None:
    needs_vnni(ran)
    pair = ("host/ort", "qemu-haswell/ort")
    done = assay("variance", "--by", "layer", "--pair", *pair, "--json", store=ran.store)
    (one,) = done.json["sets"]
    rows = {f"{r['device']}/{r['runtime']}": r for r in one["rows"]}
    assert rows["host/ort"]["findings"] == []
    taps = rows["qemu-haswell/ort"]["taps"]
    first = next(i for i, tap in enumerate(taps) if tap["kind"] == "QLinearConv")
    found = {f["name"]: f["tap"] for f in rows["qemu-haswell/ort"]["findings"]}
    assert found == {"unsound operator": first, "saturation cascade": first}
    # Behind it most are sound: fed with FP32's own tensors they lose nothing on this board either.
    assert sum(tap["local"]["sqnr_db"] > 30 for tap in taps[1:]) > len(taps) - 4


def test_the_depthwise_net_saturates_on_haswell(ran: Judged) -> None:
    needs_vnni(ran)
    found = explain(ran, "qemu-haswell", "--layers")
    assert (found["mechanism"], found["factors"]) == ("saturation", ["core"])
    assert (found["confidence"], found["blamed"]) == ("certain", "qemu-haswell/ort")
    assert "reduce_range" in found["mend"]
    layers = found["layers"]
    first = layers["operators"][layers["first"]]
    assert (first["kind"], first["guilty"]) == ("QLinearConv", True)
    assert max(layers["operators"][i]["local"]["max_lsb"] for i in layers["guilty"]) > 1
