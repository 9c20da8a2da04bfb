"""Every runtime installed here answers the probes as the golden reference says, bit for bit.

What is expected was measured on x86 with AVX2, and of ONNX Runtime for either kind of int8
arithmetic (`tests.support.isa`); on other processors these tests only ask that the golden reference
knows the arithmetic.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator

import pytest

from orchestrator.fingerprint.describe import SATURATES, identity
from orchestrator.fingerprint.pack import probes
from tests.support import isa
from tests.support.probing import Probing

CONFIGURATIONS = [
    ("onnxruntime", "default"),
    *(
        (runtime, kernels)
        for runtime in ("litert", "tflite-runtime")
        for kernels in ("default", "builtin", "reference")
    ),
]
NAMELESS = ("hash:", "HARD_SWISH")
"""float32 functions have no integer reference, nor has HARD_SWISH's fixed point."""
X86 = platform.machine() == "x86_64" and "avx2" in isa.flags()
WINDOWS = tuple(f"QLinearConv {kernel}" for kernel in ("3x3", "5x5", "7x7", "depthwise"))
"""Of these probes weights have seven bits, with which no pair leaves int16."""
PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
EXPECTED = {
    ("litert", "default"): {
        "CONV_2D": "half-even",
        "FULLY_CONNECTED": "half-even",
        "DEPTHWISE_CONV_2D int8": "half-even",
        "DEPTHWISE_CONV_2D uint8": "double",
        "MUL": "half-even",
        "ADD": "half-up",
    },
    ("litert", "builtin"): {
        "CONV_2D": "double-up",
        "FULLY_CONNECTED": "double-up",
        "DEPTHWISE_CONV_2D int8": "double-up",
        "DEPTHWISE_CONV_2D uint8": "double",
        "MUL": "double",
        "ADD": "double",
    },
    ("litert", "reference"): {
        "CONV_2D": "double",
        "FULLY_CONNECTED": "half-away",
        "DEPTHWISE_CONV_2D": "double",
        "MUL": "double",
        "ADD": "double",
    },
    ("tflite-runtime", "default"): {
        "CONV_2D int8": "double-up",
        "CONV_2D uint8": "double",
        "FULLY_CONNECTED int8": "double-up",
        "FULLY_CONNECTED uint8": "double",
        "DEPTHWISE_CONV_2D": "double",
        "MUL": "double",
        "ADD": "double",
    },
    ("tflite-runtime", "reference"): {
        "CONV_2D": "double",
        "FULLY_CONNECTED": "double",
        "DEPTHWISE_CONV_2D": "double",
        "MUL": "double",
        "ADD": "double",
    },
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probing]:
    probing = Probing(tmp_path_factory.mktemp("device"))
    with probing.session:
        yield probing


@pytest.mark.parametrize(("runtime", "kernels"), CONFIGURATIONS)
def test_every_family_has_a_name(here: Probing, runtime: str, kernels: str) -> None:
    unnamed = {
        family: mode
        for family, mode in here.modes(runtime, kernels).items()
        if not mode.startswith(NAMELESS[0]) and not family.startswith(NAMELESS[1])
        if "unmatched" in mode or " x" in mode or "/" in mode or "refused" in mode
    }
    assert unnamed == {}


@pytest.mark.skipif(not X86, reason="measured on x86 with AVX2")
@pytest.mark.parametrize(("runtime", "kernels"), EXPECTED)
def test_roundings_are_those_measured_before(here: Probing, runtime: str, kernels: str) -> None:
    for family, mode in here.modes(runtime, kernels).items():
        for beginning, wanted in EXPECTED[runtime, kernels].items():
            if family.startswith(beginning + " ") and "float32" not in family:
                tail = family.endswith(" tail") and wanted == "double-up"
                assert mode == ("double-up with tail double" if tail else wanted), family


@pytest.fixture(scope="module")
def on(
    here: Probing, core: isa.Core, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Probing]:
    """A CPU of each kind."""
    if core.real:
        yield here
        return
    python = core.python(tmp_path_factory.mktemp("cpu"))
    probing = Probing(tmp_path_factory.mktemp("device"), python)
    with probing.session:
        yield probing


@pytest.mark.isa
@pytest.mark.skipif(not X86, reason="measured on x86 with AVX2")
def test_onnxruntime_saturates_where_the_cpu_adds_pairs_and_rounds_half_to_even(
    core: isa.Core, on: Probing
) -> None:
    found = on.modes("onnxruntime")
    products = ("MatMulInteger", "QLinearMatMul", "QLinearConv", "QDQ", "QLinearAdd", "QLinearMul")
    asked = {family: mode for family, mode in found.items() if family.startswith(products)}
    for family, mode in asked.items():
        assert mode.removeprefix(SATURATES) in ("half-even", "exact"), family
    saturating = {family for family, mode in asked.items() if mode.startswith(SATURATES)}
    signed = {family for family in asked if "U8S8" in family or "float ends S8S8" in family}
    may = {family for family in signed if not family.startswith(WINDOWS)}
    assert saturating == (may if core.kind == isa.PAIRS else set())
    assert len(may) > 8


@pytest.mark.skipif(not X86, reason="measured on x86 with AVX2")
def test_the_plan_of_a_residual_net_is_partly_float_on_x86(here: Probing) -> None:
    found = here.document("onnxruntime")["families"]
    assert "Conv" in found["plan of a residual net int8"]["plan"]
    assert "in float" in found["plan of a residual net int8"]["plan"]
    assert found["plan of a residual net uint8"]["plan"] == "all in integers"


def test_asked_again_the_answers_are_the_same(here: Probing) -> None:
    for threads in (1, 2):
        first = here.answers("onnxruntime", "default", threads)
        again = here._answers("onnxruntime", "default", threads)
        assert [a.tried for a in first.trials] == [a.tried for a in again.trials]


def test_a_document_is_stable_json_whose_hash_is_over_the_answers(here: Probing) -> None:
    document = here.document("litert")
    text = json.dumps(document, sort_keys=True, allow_nan=False)
    assert identity(json.loads(text)) == document["sha256"]
    names = [n for family in document["families"].values() for n in family["probes"]]
    assert sorted(names) == sorted(probe.name for probe in probes("tflite"))
    document = json.loads(text)
    document["families"]["ADD int8"]["mode"] = "another name"
    assert identity(document) == json.loads(text)["sha256"]
    document["families"]["ADD int8"]["sha256"] = "0" * 64
    assert identity(document) != json.loads(text)["sha256"]
