"""Localisation on cases whose cause was found beforehand, by hand and without Assay.

Emulated boards answer the same integers on every host. "host" is this machine, so what is asked of
it holds for an x86-64 with VNNI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import assay
from tests.support.isa import needs_exact, saturates
from tests.support.judged import Judged
from tests.support.realmodels import MODELS, classifiers, write

pytestmark = [pytest.mark.farm, pytest.mark.realmodels, pytest.mark.timeout(1500)]

SAMPLES = {"pictures": 100, "clips": 20, "photos": 8}
"""Of 100 pictures one shows that two softmaxes differ, of the first 10 none."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder, parts = tmp_path_factory.mktemp("layers"), classifiers()
    coral = MODELS / "coral_mobilenet_v1_025_128"
    net = {
        "name": "mobilenet",
        "task": {"type": "classification"},
        "inputs": "photos",
        "files": [{"name": "u8", "path": str(coral / "mobilenet_v1_0.25_128_quant.tflite")}],
    }
    photos = {"name": "photos", "path": str(coral / "eval_images_128.npz"), "array": "images"}
    parts["models"].append(net)
    parts["inputs"].append({"type": "npz", "labels": "labels", **photos})
    for dataset in parts["inputs"]:
        dataset["limit"] = SAMPLES[dataset["name"]]
    matrix = write(folder, ["host", "qemu-a53", "qemu-a72", "qemu-haswell"], **parts)
    wanted = (
        "host-resnet8.*",
        "host-kws.qdq-*",
        "qemu-a53-resnet8.int8-*-tflite214",
        "qemu-a53-resnet8.int8-*-litert",
        "qemu-a53-resnet8.qdq-*-ort",
        "qemu-a*-mobilenet.u8-*-litert",
        "qemu-haswell-kws.qdq-*-ort",
    )
    select = [part for glob in wanted for part in ("--select", glob)]
    done = assay("run", matrix, *select, "--json", store=folder / "store", timeout=1400)
    return Judged(done, folder / "store")


def layers(ran: Judged, file: str, a: str, b: str) -> dict[str, Any]:
    store: Path = ran.store
    few = ("--model", file, "--samples", "3", "--json")
    done = assay("layers", a, b, *few, store=store, timeout=600)
    assert done.code == 0, done.err
    found: dict[str, Any] = done.json
    assert [found[side]["reproduced"] for side in ("a", "b")] == [True, True]
    return found


def guilty(found: dict[str, Any], kind: str) -> set[bool]:
    """Whether operators of a kind are guilty: {True}, {False} or both."""
    return {o["guilty"] for o in found["operators"] if o["kind"] == kind}


def test_rounding_of_negative_ties_names_the_convolutions_without_relu(ran: Judged) -> None:
    """tflite-runtime 2.14 rounds twice on ARM, and the second time half up on x86."""
    if ran.rows["resnet8.int8@host/tflite214"]["status"] == "not_available":
        pytest.skip("no tflite-runtime 2.14 on this host")
    found = layers(ran, "resnet8.int8", "host/tflite214", "qemu-a53/tflite214")
    assert found["first"] == 2
    assert found["guilty"] == [2, 5, 6, 9, 10]
    assert {o["local"]["sign"] for o in found["operators"] if o["guilty"]} == {"+"}
    assert {o["local"]["max_lsb"] for o in found["operators"] if o["guilty"]} == {1}


def test_rndnu16_names_every_convolution_of_mobilenet(ran: Judged) -> None:
    """XNNPACK shifts before it multiplies on a Cortex-A53, for uint8 and not depthwise."""
    found = layers(ran, "mobilenet.u8", "qemu-a72/litert", "qemu-a53/litert")
    assert found["first"] == 0
    assert guilty(found, "CONV_2D") == {True}
    assert sum(o["kind"] == "CONV_2D" for o in found["operators"]) == len(found["guilty"])
    assert guilty(found, "DEPTHWISE_CONV_2D") == {False}


def test_of_litert_on_arm_only_the_softmax_differs(ran: Judged) -> None:
    found = layers(ran, "resnet8.int8", "host/litert", "qemu-a53/litert")
    assert 0 < found["samples_differing"]["k"] < 10
    (last,) = found["guilty"]
    assert (found["first"], found["operators"][last]["kind"]) == (last, "SOFTMAX")


@pytest.mark.isa
def test_saturation_begins_in_the_first_convolution(ran: Judged) -> None:
    needs_exact(ran.isa("host"))
    found = layers(ran, "kws.qdq", "host/ort", "qemu-haswell/ort")
    assert found["answer"] == "operator"
    kinds = [o["kind"] for o in found["operators"]]
    assert found["first"] == kinds.index("QLinearConv")
    assert found["operators"][found["first"]]["accumulated"]["max_lsb"] > 1


def test_what_x86_keeps_in_float_is_a_difference_of_plans(ran: Judged) -> None:
    found = layers(ran, "resnet8.qdq", "host/ort", "qemu-a53/ort")
    assert (found["answer"], found["plan_matters"]) == ("plan", True)
    kinds = sorted((layer["a"], layer["b"]) for layer in found["plan"]["layers"])
    assert kinds == 2 * [("Add", "QLinearAdd")] + 6 * [("Conv", "QLinearConv")]
    # Where the host's products saturate, its integer convolutions differ as well.
    integer = {"QLinearConv"} if saturates(ran.isa("host")) else set()
    assert {found["operators"][i]["kind"] for i in found["guilty"]} <= {"Softmax"} | integer
