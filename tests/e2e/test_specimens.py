"""Nine real files that stop, surprise or mislead a tool, in one run: none stops another.

What each is and why is told by the README of $ASSAY_REALMODELS/specimens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.store.database import Store
from tests.conftest import farm_trouble
from tests.support.cli import assay
from tests.support.judged import Judged
from tests.support.realmodels import MODELS, write

pytestmark = [pytest.mark.realmodels, pytest.mark.timeout(600)]

SPECIMENS = MODELS / "specimens"
BOARD = "qemu-a76"
SAMPLES = 4
OK = ("ok", None, "")
LOAD = ("model_error", "E-MODEL-LOAD")
PER_CHANNEL_BIAS = (*LOAD, "quantized_dimension must be in range [0, 1). Was 3")
NEW_OPERATOR = (*LOAD, "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'")

MODELS_OF = {
    "person": ("classification", "faces", ["person_detect_int8"]),
    "audio": ("regression", "frames", ["audio_preprocessor_int8"]),
    "speech": ("classification", "spectra", ["micro_speech_int8"]),
    "invoking": ("regression", "bytes", ["model_invoking_error"]),
    "har": ("classification", "motion", ["har_fp32", "har_dynamic_range"]),
    "wake": ("classification", "windows", ["streaming_wakeword_int8"]),
    "text": ("classification", "tokens", ["text_classifier_fp32", "text_classifier_int8"]),
}
PARENTS = {"har": "har_fp32", "text": "text_classifier_fp32"}
INPUTS: dict[str, tuple[type, tuple[int, ...]]] = {
    "faces": (np.int8, (96, 96, 1)),
    "frames": (np.int16, (480,)),
    "spectra": (np.int8, (1960,)),
    "bytes": (np.uint8, (3,)),
    "motion": (np.float32, (128, 3)),
    "windows": (np.int8, (30, 1, 40)),
}
EXPECTED = {
    "person_detect_int8": (PER_CHANNEL_BIAS, PER_CHANNEL_BIAS),
    "audio_preprocessor_int8": 2 * ((*LOAD, "unresolved custom op: SignalWindow"),),
    "micro_speech_int8": (OK, OK),
    "model_invoking_error": 2 * ((*LOAD, "unresolved custom op: fake-op-double"),),
    "har_fp32": (OK, OK),
    "har_dynamic_range": (OK, NEW_OPERATOR),
    "streaming_wakeword_int8": (OK, OK),
    "text_classifier_fp32": (OK, OK),
    "text_classifier_int8": (OK, OK),
}
"""Outcome, error ID and text: by LiteRT 2.3, by tflite-runtime 2.14."""


def task(kind: str) -> dict[str, Any]:
    return {"type": kind} | ({"tolerance": 1.0} if kind == "regression" else {})


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("specimens")
    rng = np.random.default_rng(11)
    inputs: list[dict[str, Any]] = []
    for name, (dtype, shape) in INPUTS.items():
        real = rng.standard_normal((SAMPLES, *shape)) * (1 if dtype is np.float32 else 40)
        np.save(folder / f"{name}.npy", np.abs(real).clip(0, 127).astype(dtype))
        inputs.append({"name": name, "type": "npy", "path": str(folder / f"{name}.npy")})
    tokens = {"name": "tokens", "type": "npz", "path": str(SPECIMENS / "text_inputs.npz")}
    inputs.append({**tokens, "array": "token_ids", "labels": "labels"})
    models = [
        {
            "name": name,
            "task": task(kind),
            "inputs": given,
            "files": [{"name": f, "path": str(SPECIMENS / f"{f}.tflite")} for f in files],
            **({"fp32": str(SPECIMENS / f"{PARENTS[name]}.tflite")} if name in PARENTS else {}),
        }
        for name, (kind, given, files) in MODELS_OF.items()
    ]
    boards = [] if farm_trouble() else [BOARD]
    runtimes = [
        {"name": "litert", "runtime": "litert"},
        {"name": "tflite214", "runtime": "tflite-runtime"},
    ]
    matrix = write(
        folder, ["host", *boards], models=models, inputs=inputs, runtimes=runtimes, policy=None
    )
    store = folder / "store"
    return Judged(assay("run", matrix, "--json", store=store, timeout=500), store)


def ending(ran: Judged, device: str, file: str, runtime: str) -> tuple[str, str | None, str]:
    """Outcome, error ID and text of the last attempt at a cell; boards may be held by others."""
    model, given = next((m, i) for m, (_, i, files) in MODELS_OF.items() if file in files)
    cell = f"{device}-{model}.{file}-{given}-clean-{runtime}"
    tried = [a for a in ran.document["attempts"] if a["cell"] == cell]
    attempt = max(tried, key=lambda a: a["number"])
    return attempt["outcome"], attempt["error_id"], attempt["error"] or ""


def check(ran: Judged, device: str, file: str) -> None:
    for runtime, expected in zip(("litert", "tflite214"), EXPECTED[file], strict=True):
        found = ending(ran, device, file, runtime)
        if found[1] == "E-RUNTIME-MISSING" and runtime == "tflite214":
            continue  # not available here, which is said as well
        assert found[:2] == expected[:2], found
        assert expected[2] in found[2]
        assert "\n" not in found[2]
        assert "Traceback" not in found[2]


@pytest.mark.parametrize("file", EXPECTED)
def test_each_file_ends_in_a_run_or_a_diagnosis(ran: Judged, file: str) -> None:
    check(ran, "host", file)


@pytest.mark.farm
@pytest.mark.parametrize("file", EXPECTED)
def test_the_same_on_a_board(ran: Judged, file: str) -> None:
    check(ran, BOARD, file)


def test_the_run_itself_is_in_order(ran: Judged) -> None:
    assert ran.done.code == 1, "models that fail are the models' fault"
    assert {Path(f).stem for f in SPECIMENS.glob("*.tflite")} == set(EXPECTED)
    assert ran.document["coverage"]["infra_error"] == 0
    with Store.open(ran.store, readonly=True) as opened:
        assert opened.leases() == [], "nothing holds a device"


def test_token_ids_reach_the_model_as_they_are(ran: Judged) -> None:
    """The README's counts: of 60 sentences 30 right in INT8 and 9 flips, by tflite-runtime 2.14."""
    row = ran.rows.get("text.text_classifier_int8@host/tflite214")
    if row is None or row["status"] == "not_available":
        pytest.skip("tflite-runtime 2.14 is not available here")
    fp32 = row["fp32"]
    assert row["accuracy"]["k"] == 30
    assert fp32["accuracy"]["k"] == 29
    assert fp32["disagreement"]["k"] == 9
