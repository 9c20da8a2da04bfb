"""The probe pack: the same bytes everywhere, small, and able to tell its modes apart."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from orchestrator.fingerprint import pack
from orchestrator.fingerprint.describe import SATURATES
from orchestrator.fingerprint.golden import ROUNDINGS
from orchestrator.fingerprint.probe import Probe
from tests.support.cli import REPO

FORMATS = ("onnx", "tflite")


def archived(model_format: str) -> bytes:
    return pack.archive(pack.probes(model_format)).data


@pytest.mark.parametrize("model_format", FORMATS)
def test_it_is_small_for_the_device_makes_the_inputs_itself(model_format: str) -> None:
    fed = sum(feed.values().nbytes for p in pack.probes(model_format) for feed in p.feeds)
    assert len(archived(model_format)) < 100_000 < fed


def test_another_process_makes_the_same_bytes() -> None:
    code = (
        "import hashlib\nfrom orchestrator.fingerprint import pack\n"
        "for f in ('onnx', 'tflite'):\n"
        "    print(hashlib.sha256(pack.archive(pack.probes(f)).data).hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    here = [hashlib.sha256(archived(f)).hexdigest() for f in FORMATS]
    assert done.stdout.split() == here


@pytest.mark.parametrize("model_format", FORMATS)
def test_names_tell_probes_apart(model_format: str) -> None:
    names = [probe.name for probe in pack.probes(model_format)]
    assert len(set(names)) == len(names)


def families(model_format: str) -> dict[str, list[Probe]]:
    found: dict[str, list[Probe]] = {}
    for probe in pack.probes(model_format):
        found.setdefault(probe.family, []).append(probe)
    return found


@pytest.mark.parametrize("model_format", FORMATS)
def test_every_product_tells_every_rounding_from_every_other(model_format: str) -> None:
    """For two modes of a family some probe of it must have two answers, or its name is a guess."""
    products = ("CONV", "FULLY", "DEPTHWISE", "QLinearConv", "QLinearMatMul", "QDQ")
    for family, members in families(model_format).items():
        known = [expected for probe in members if (expected := probe.expected())]
        if not family.startswith(products) or not known or "half-even" not in known[0]:
            continue
        for a in ROUNDINGS:
            for b in ROUNDINGS:
                # The two differ in the bits of the multiplier alone, and share a name.
                if a < b and {a, b} != {"half-up", "rndnu"}:
                    apart = [not np.array_equal(e[a], e[b]) for e in known]
                    assert any(apart), f"{family}: {a} is {b}"


def test_saturation_shows_wherever_its_mode_is_known() -> None:
    seen = set()
    for family, members in families("onnx").items():
        pairs = [
            (expected[mode], expected[mode.removeprefix(SATURATES)])
            for expected in (probe.expected() for probe in members)
            for mode in expected
            if mode.startswith(SATURATES)
        ]
        if pairs and not family.endswith("per-tensor"):  # those ask for ties and tails only
            assert any(not np.array_equal(*pair) for pair in pairs), family
            seen.add(family.partition(" ")[0])
    assert seen == {"MatMulInteger", "QLinearMatMul", "QLinearConv", "QDQ"}


def test_there_are_softmax_outputs_enough_to_see_one_code_in_20_000() -> None:
    for probe in (*pack.probes("tflite"), *pack.probes("onnx")):
        if "softmax" in probe.family.lower():
            assert np.prod(probe.feeds[0].shape) >= 20_000, probe.name


@pytest.mark.parametrize("model_format", FORMATS)
def test_every_operator_is_asked_under_several_threads_too(model_format: str) -> None:
    wide = {probe.family for probe in pack.wide(model_format)}
    assert len(wide) > 8
    assert len(pack.archive(pack.wide(model_format)).data) < 30_000
