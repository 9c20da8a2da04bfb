"""Causes and places on the virtual boards, each found beforehand by hand and without Assay.

Emulated boards answer the same integers on every machine. "host" is this one, so that what is asked
of it holds for an x86-64 with VNNI. One run has all cases, and each pair is visited once: `explain
--layers` brings the document of `assay layers` with it.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cli import assay
from tests.support.isa import needs_exact, saturates
from tests.support.judged import Judged
from tests.support.realmodels import INVENTORY, MODELS, classifiers, write
from tests.support.tiny import MODELS as QUICKSTART_MODELS
from tests.support.tiny import QUICKSTART

pytestmark = [pytest.mark.farm, pytest.mark.realmodels, pytest.mark.timeout(600)]

CORAL = MODELS / "coral_mobilenet_v1_025_128"
KEPT = ("kws.savedmodel", "kws.qdq", "resnet8.int8", "resnet8.qdq")
ASKED = (
    *("host-mobilenet.u8-*-litert", "qemu-a53-mobilenet.u8-*-litert"),
    *("host-digits.u8s8-*-ort", "qemu-haswell-digits.u8s8-*-ort"),
    *("host-resnet8.*-clean-*", "qemu-a53-resnet8.*-clean-*"),
    *("host-kws.qdq-*-ort", "qemu-haswell-kws.qdq-*-ort"),
    *("host-kws.savedmodel-*-tflite214", "qemu-a53-kws.savedmodel-*-tflite214"),
)
MORE: tuple[dict[str, Any], ...] = (
    {
        "name": "mobilenet",
        "file": (CORAL / "mobilenet_v1_0.25_128_quant.tflite", "u8", "same"),
        "path": str(CORAL / "eval_images_128.npz"),
        "array": "images",
        "labels": "labels",
        "limit": 20,
    },
    {
        "name": "digits",
        "file": (QUICKSTART_MODELS / "digits_ds.u8s8.onnx", "u8s8", "nchw"),
        "path": str(QUICKSTART / "digits_32x32.npz"),
        "array": "x",
        "labels": "y",
        "limit": 60,
    },
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """One run of all: each case is one file on two devices or under two runtimes."""
    folder = tmp_path_factory.mktemp("causes")
    known = classifiers()
    models: list[dict[str, Any]] = known["models"]
    for model in models:
        model["files"] = [f for f in model["files"] if f"{model['name']}.{f['name']}" in KEPT]
    inputs = [dataset | {"limit": 100} for dataset in known["inputs"]]
    for more in MORE:
        path, file, layout = more["file"]
        named = {"name": more["name"], "task": {"type": "classification"}, "inputs": more["name"]}
        models.append({**named, "files": [{"name": file, "path": str(path), "layout": layout}]})
        inputs.append({"type": "npz", **{k: v for k, v in more.items() if k != "file"}})
    models[-1]["fp32"] = {"path": str(QUICKSTART_MODELS / "digits_ds.fp32.onnx"), "layout": "nchw"}
    matrix = write(folder, ["host", "qemu-a53", "qemu-haswell"], models=models, inputs=inputs)
    select = [part for glob in ASKED for part in ("--select", glob)]
    done = assay("run", matrix, *select, "--json", store=folder / "store", timeout=400)
    return Judged(done, folder / "store")


def explain(ran: Judged, model: str, a: str, b: str, *options: str) -> dict[str, Any]:
    asked = ("explain", a, b, "--model", model, *options, "--json")
    done = assay(*asked, store=ran.store, timeout=300)
    assert done.code == 0, done.err
    (found,) = done.json["pairs"]
    assert isinstance(found, dict)
    return found


def located(ran: Judged, model: str, a: str, b: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Why two rows differ, and where; both devices gave their recorded answers again for it."""
    found = explain(ran, model, a, b, "--layers")
    layers: dict[str, Any] = found["layers"]
    assert [layers[side]["reproduced"] for side in ("a", "b")] == [True, True]
    return found, layers


def fingerprint(ran: Judged, runtime: str) -> None:
    """Of this machine and of the board."""
    for board in ("host", "qemu-a53"):
        asked = ("fingerprint", board, "-i", str(INVENTORY), "--runtime", runtime)
        done = assay(*asked, store=ran.store, timeout=200)
        assert done.code == 0, done.err


def test_mobilenet_on_a_cortex_a53_rounds_its_convolutions_differently(ran: Judged) -> None:
    """XNNPACK shifts there before it multiplies, for uint8: 15 of 15 CONV_2D, no other."""
    found, layers = located(ran, "mobilenet.u8", "host", "qemu-a53")
    assert (found["mechanism"], found["factors"]) == ("rounding", ["core"])
    # The output is up to 41 steps off; each operator alone never is by more than one.
    assert found["difference"]["max_lsb"] > 1
    assert found["confidence"] == "likely"
    assert "differ on equal inputs: 15 CONV_2D, max 1 LSB" in found["because"]
    assert layers["first"] == 0
    guilty = {i for i, o in enumerate(layers["operators"]) if o["guilty"]}
    assert guilty == {i for i, o in enumerate(layers["operators"]) if o["kind"] == "CONV_2D"}
    assert sorted(guilty) == layers["guilty"]


def test_the_probes_name_the_rounding(ran: Judged) -> None:
    fingerprint(ran, "litert/default")
    found = explain(ran, "mobilenet.u8", "host", "qemu-a53")
    assert (found["mechanism"], found["confidence"]) == ("rounding", "likely")
    assert [x for x in found["because"] if "CONV_2D uint8" in x and x.endswith("/ rndnu16")]
    assert not [x for x in found["because"] if "DEPTHWISE" in x and "rndnu16" in x]


@pytest.mark.isa
def test_layer_by_layer_the_saturating_convolution_is_unsound(ran: Judged) -> None:
    needs_exact(ran.isa("host"))
    pair = ("host/ort", "qemu-haswell/ort")
    done = assay("variance", "--by", "layer", "--pair", *pair, "--json", store=ran.store)
    (one,) = [x for x in done.json["sets"] if x["model"] == "digits"]
    rows = {f"{r['device']}/{r['runtime']}": r for r in one["rows"]}
    assert rows["host/ort"]["findings"] == []
    taps = rows["qemu-haswell/ort"]["taps"]
    first = next(i for i, tap in enumerate(taps) if tap["kind"] == "QLinearConv")
    found = {f["name"]: f["tap"] for f in rows["qemu-haswell/ort"]["findings"]}
    assert found == {"unsound operator": first, "saturation cascade": first}
    # Behind it most are sound: fed with FP32's own tensors they lose nothing on this board either.
    assert sum(tap["local"]["sqnr_db"] > 30 for tap in taps[1:]) > len(taps) - 4


@pytest.mark.isa
def test_the_depthwise_net_saturates_on_haswell(ran: Judged) -> None:
    needs_exact(ran.isa("host"))
    found, layers = located(ran, "digits.u8s8", "host", "qemu-haswell")
    assert (found["mechanism"], found["factors"]) == ("saturation", ["core"])
    assert (found["confidence"], found["blamed"]) == ("certain", "qemu-haswell/ort")
    assert "reduce_range" in found["fix"]
    first = layers["operators"][layers["first"]]
    assert (first["kind"], first["guilty"]) == ("QLinearConv", True)
    assert max(layers["operators"][i]["local"]["max_lsb"] for i in layers["guilty"]) > 1


RESNET, OLD, NEW = "resnet8.int8", "host/tflite214", "host/litert"


def test_resnet8_in_the_old_runtime_differs_where_no_relu_clamps(ran: Judged) -> None:
    """2.14 rounds twice on ARM, and ties below zero differently: five of nine convolutions."""
    if ran.rows["resnet8.int8@host/tflite214"]["status"] == "not_available":
        pytest.skip("no tflite-runtime 2.14 on this host")
    found, layers = located(ran, RESNET, OLD, "qemu-a53/tflite214")
    assert (found["mechanism"], found["factors"]) == ("rounding", ["core"])
    assert found["confidence"] == "likely"
    assert "differ on equal inputs: 5 CONV_2D, max 1 LSB" in found["because"]
    assert (layers["first"], layers["guilty"]) == (2, [2, 5, 6, 9, 10])
    wrong = [o["local"] for o in layers["operators"] if o["guilty"]]
    assert {(local["sign"], local["max_lsb"]) for local in wrong} == {("+", 1)}


def test_resnet8_in_litert_differs_at_the_softmax_alone(ran: Judged) -> None:
    found, layers = located(ran, RESNET, NEW, "qemu-a53/litert")
    assert (found["mechanism"], found["factors"]) == ("rounding", ["core"])
    assert found["difference"]["elements_different"] > 0
    assert "differ on equal inputs: 1 SOFTMAX, max 1 LSB" in found["because"]
    assert 0 < layers["samples_differing"]["k"] < 10
    (last,) = layers["guilty"]
    assert (layers["first"], layers["operators"][last]["kind"]) == (last, "SOFTMAX")


def test_resnet8_qdq_is_another_plan_on_arm(ran: Judged) -> None:
    """x86 keeps sums and convolutions in float that ARM computes in integers."""
    found, layers = located(ran, "resnet8.qdq", "host/ort", "qemu-a53/ort")
    assert (layers["answer"], layers["plan_matters"]) == ("plan", True)
    kinds = sorted((layer["a"], layer["b"]) for layer in layers["plan"]["layers"])
    assert kinds == 2 * [("Add", "QLinearAdd")] + 6 * [("Conv", "QLinearConv")]
    # Where the host's products saturate, its integer convolutions differ as well.
    integer = {"QLinearConv"} if saturates(ran.isa("host")) else set()
    assert {layers["operators"][i]["kind"] for i in layers["guilty"]} <= {"Softmax"} | integer
    if not integer:
        assert (found["mechanism"], found["factors"]) == ("plan", ["core"])
        counts = "Add 2/0, Conv 6/0, QLinearAdd 1/3, QLinearConv 3/9"
        assert any(why.endswith(counts) for why in found["because"])


@pytest.mark.isa
def test_kws_qdq_saturates_on_haswell(ran: Judged) -> None:
    needs_exact(ran.isa("host"))
    found, layers = located(ran, "kws.qdq", "host", "qemu-haswell")
    assert (found["mechanism"], found["factors"]) == ("saturation", ["core"])
    assert found["blamed"] == "qemu-haswell/ort"
    assert "x64quantprecision" in found["fix"]
    assert layers["answer"] == "operator"
    kinds = [o["kind"] for o in layers["operators"]]
    assert layers["first"] == kinds.index("QLinearConv")
    assert layers["operators"][layers["first"]]["accumulated"]["max_lsb"] > 1


def test_kws_int8_is_identical_for_relus_clamp_what_differs(ran: Judged) -> None:
    """The same two roundings as of resnet8, in a file whose convolutions all have a ReLU."""
    fingerprint(ran, "tflite-runtime/default")
    found = explain(ran, "kws.savedmodel", OLD, "qemu-a53/tflite214")
    assert (found["mechanism"], found["confidence"]) == ("identical", "certain")
    why = "\n".join(found["because"])
    assert "the probes tell the two apart: probes of CONV_2D int8 per-channel: double-up" in why
    for family, n, probes in (("CONV_2D", 5, 4), ("DEPTHWISE_CONV_2D", 4, 2)):
        assert (
            f"\n{family} int8 per-channel: a fused ReLU clamps the results of all {n} in the file, "
            f"and the {probes} probes with one are answered alike"
        ) in why


def test_resnet8_in_two_versions_is_the_kernel(ran: Judged) -> None:
    found = explain(ran, RESNET, OLD, NEW)
    assert found["mechanism"] == "kernel/version"
    assert "runtime" in found["factors"]
    assert "tflite-runtime / litert, 2.14.0 / 2." in found["because"][0]
