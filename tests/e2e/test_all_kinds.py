"""One run over every kind of device.

This machine, ARM and x86 boards, a 32-bit board, a phone over adb, and a stand-in for an Edge TPU.
Same files, same inputs, same log, wherever it ran.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infra.virtual_farm.config import load_definitions
from orchestrator.store.database import Store
from tests.support import farm
from tests.support.cli import REPO, assay
from tests.support.judged import Judged

pytestmark = [pytest.mark.farm, pytest.mark.phone, pytest.mark.timeout(1500)]

CARD = json.loads((REPO / "matrices" / "quickstart" / "card.json").read_text())
BOARDS = {"qemu-a53", "qemu-a72", "qemu-a76", "qemu-haswell"}
EMULATED = BOARDS | {"qemu-nehalem", "qemu-badboard", "qemu-armhf", "qemu-phone", "standin-coral"}
NET = "digits_cnn"


@pytest.fixture(scope="module")
def run(everything: Judged) -> Judged:
    return everything


def row(file: str, device: str, runtime: str) -> str:
    return f"{NET}.{file}@{device}/{runtime}"


NOT_COVERED = {
    row("u8u8", "qemu-armhf", "ort"): "onnxruntime is not installed",
    row("int8", "qemu-armhf", "litert"): "litert is not installed",
    row("int8", "qemu-phone", "gpu"): "no delegate 'gpu'",
    row("int8", "qemu-phone", "nnapi"): "no delegate 'nnapi'",
    row("int8", "qemu-phone", "qnn"): "no delegate 'qnn'",
}


def test_every_cell_ends_with_an_outcome(run: Judged) -> None:
    coverage = run.document["coverage"]
    tflite = {"ok"} if (REPO / ".venv-tflite" / "bin" / "python").exists() else set()
    missing = 2 * (len(NOT_COVERED) + (0 if tflite else 1))
    assert coverage["not_available"] == missing
    assert coverage["ok"] == coverage["planned"] - missing
    assert {r["device"] for r in run.rows.values()} == EMULATED | {"host"}


def test_what_is_not_there_is_not_covered_with_the_reason(run: Judged) -> None:
    for id, reason in NOT_COVERED.items():
        found = run.rows[id]
        assert found["verdict"] == "inconclusive", id
        assert any("not covered" in r and reason in r for r in found["reasons"]), found["reasons"]


def test_every_device_was_given_the_same_bytes(run: Judged) -> None:
    seen: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for attempt in run.attempts.values():
        file = re.split("-digits[0-9]+-", attempt.info.cell)[0].rpartition("-")[2]
        key = (file, attempt.condition)
        seen.setdefault(key, set()).add(tuple(attempt.result["input_sha256"]))
    assert {f"{NET}.{f}" for f in ("u8u8", "int8", "edgetpu")} < {file for file, _ in seen}
    assert all(len(given) == 1 for given in seen.values())


def test_every_attempt_has_its_log(run: Judged) -> None:
    for id, attempt in run.attempts.items():
        telemetry = attempt.result["telemetry"]
        assert telemetry["samples"] >= 2, id
        assert "telemetry" in attempt.info.artefacts, id
    shown = {t["row"]: t for t in run.document["traces"]}
    assert set(shown) == set(run.rows) - set(NOT_COVERED)
    for device in EMULATED - {"standin-coral"}:
        rows = [t for id, t in shown.items() if f"@{device}/" in id]
        assert rows
        for trace in rows:
            known = [v for series in trace["temp_c"].values() for v in series if v is not None]
            assert known, (device, "no temperature was ever read")


def test_the_phone_is_read_through_its_services(run: Judged) -> None:
    for attempt in run.attempts.values():
        if attempt.device != "qemu-phone":
            continue
        start: dict[str, Any] = attempt.result["telemetry"]["start"]
        assert start["battery/level"] is not None
        assert any(name.startswith("temp/skin") for name in start)
        assert attempt.environment["board"]["class"] == "qemu-phone"


def test_the_phone_says_which_android_it_is(run: Judged) -> None:
    phone = load_definitions().boards["qemu-phone"].phone
    assert phone is not None
    properties = phone.properties
    expected = {
        "hardware": f"{properties['ro.product.manufacturer']} {properties['ro.product.model']}",
        "fingerprint": properties["ro.build.fingerprint"],
        "os": f"Android {properties['ro.build.version.release']}",
        "soc": f"{properties['ro.soc.manufacturer']} {properties['ro.soc.model']}",
    }
    phones = [a for a in run.attempts.values() if a.device == "qemu-phone"]
    assert phones
    for attempt in phones:
        assert {name: attempt.environment[name] for name in expected} == expected
    with Store.open(run.store, readonly=True) as store:
        (known,) = (d for d in store.devices() if d.name == "qemu-phone")
    assert {name: known.identity[name] for name in expected} == expected
    boards = [a for a in run.attempts.values() if a.device in BOARDS]
    assert not any({"fingerprint", "soc"} & set(a.environment) for a in boards)


def test_arm_arithmetic_is_the_same_over_ssh_and_over_adb(run: Judged) -> None:
    """The bundle's runtimes on the phone, the boards' own wheels: not a bit apart."""
    for file, runtime in (("int8", "litert"), ("u8u8", "ort")):
        for device in BOARDS:
            pair = run.pair(row(file, "qemu-phone", runtime), row(file, device, runtime))
            assert (pair["n"], pair["bit_exact_rate"]) == (1000, 1.0), (file, device)


def test_32_and_64_bit_agree_in_tflite_214(run: Judged) -> None:
    for device in ("qemu-a53", "qemu-haswell"):
        pair = run.pair(row("int8", "qemu-armhf", "tflite214"), row("int8", device, "tflite214"))
        assert (pair["n"], pair["bit_exact_rate"]) == (1000, 1.0)
    correct = CARD["correct"][f"{NET}.int8.tflite"]
    assert run.rows[row("int8", "qemu-armhf", "tflite214")]["accuracy"]["k"] in correct.values()


def test_the_compiled_file_is_linked_to_its_source_and_says_it_is_a_stand_in(run: Judged) -> None:
    (coral,) = (r for r in run.rows.values() if r["device"] == "standin-coral")
    assert (coral["device_class"], coral["emulated"]) == ("standin-edgetpu", True)
    attempt = next(a for a in run.attempts.values() if a.device == "standin-coral")
    assert attempt.result["backend"]["fallbacks"] == []
    source = next(a for a in run.attempts.values() if f"{NET}.int8-" in a.cell)
    assert attempt.result["model_sha256"] != source.result["model_sha256"]
    shown = assay("signoff", run.document["run"]["id"], store=run.store).out
    assert f"compiled from int8 (sha256 {source.result['model_sha256'][:12]})" in shown
    assert "1 partition" in shown


def test_a_second_run_sends_nothing_again(run: Judged, tmp_path: Path) -> None:
    matrix = farm.both(tmp_path)
    again = Judged(farm.run(matrix, run.store, "qemu-phone-*", executor="inprocess"), run.store)
    pushed = Counter(a.device for a in again.attempts.values() if a.result["bytes_pushed"])
    assert again.attempts
    assert not pushed
