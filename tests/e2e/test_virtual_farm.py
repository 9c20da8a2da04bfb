"""The quickstart's nets on emulated boards over ssh: what the tool must find unaided.

That is the model card's, which was measured without Assay. The run has other kinds of units too,
which `test_all_kinds` asks about: `farm` is what it says of the boards.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cli import REPO, assay
from tests.support.farm import POLICY, both
from tests.support.isa import VNNI, needs_exact, saturates
from tests.support.judged import Attempt, Judged

pytestmark = [pytest.mark.farm, pytest.mark.timeout(1500)]

CARD = json.loads((REPO / "matrices" / "quickstart" / "card.json").read_text())
DEFINED = yaml.safe_load((REPO / "infra" / "virtual_farm" / "boards.yaml").read_text())["boards"]
ARM = ("qemu-a53", "qemu-a72", "qemu-a76")
BOARDS = {n: DEFINED[n] for n in (*ARM, "qemu-haswell", "qemu-nehalem", "qemu-badboard")}
NETS = ("digits_cnn", "digits_ds")
ONNX = ("u8s8", "u8u8", "u8s8_rr")
RUNTIMES = ("ort", "litert")


class Boards(Judged):
    """A run as if it had been of the boards, this machine and the two newer runtimes alone."""

    def __init__(self, run: Judged) -> None:
        self.__dict__.update(run.__dict__)
        ours = {"host", *BOARDS}
        self.rows = {
            i: r for i, r in run.rows.items() if r["device"] in ours and r["runtime"] in RUNTIMES
        }
        self.attempts = {
            i: a for i, a in run.attempts.items() if a.device in ours and a.runtime in RUNTIMES
        }
        self.classes = {c: x for c, x in run.classes.items() if c in ours}


@pytest.fixture(scope="module")
def farm(everything: Judged) -> Boards:
    return Boards(everything)


def row(net: str, file: str, device: str) -> str:
    return f"{net}.{file}@{device}/{'litert' if file == 'int8' else 'ort'}"


def card(file: str, kernels: str) -> dict[str, Any]:
    """What the model card says of a file on other kernels, against the plain ones."""
    plain = kernels.partition("-")[0]
    found: dict[str, Any] = next(
        d
        for d in CARD["differences"]
        if (d["model"], d["kernels"], d["baseline"]) == (file, kernels, plain)
    )
    return found


def sick_host(farm: Judged) -> bool:
    return saturates(farm.isa("host"))


def test_every_cell_came_back(farm: Boards) -> None:
    planned = (1 + len(BOARDS)) * len(NETS) * (len(ONNX) + 1) * 2
    assert len(farm.attempts) == planned  # each ok
    assert {c for c in farm.classes if farm.classes[c]["emulated"]} == set(BOARDS)


def test_the_verdict_is_a_fail_and_says_first_what_it_rests_on(
    farm: Boards, everything: Judged
) -> None:
    assert (farm.verdict, farm.done.code) == ("fail", 1)
    emulated = sorted({r["device"] for r in everything.rows.values() if r["emulated"]})
    assert set(BOARDS) < set(emulated)
    assert farm.reasons[0] == f"includes emulated devices: {', '.join(emulated)}"
    shown = assay("signoff", farm.document["run"]["id"], store=farm.store)
    assert shown.code == 1
    first = next(x for x in shown.out.splitlines() if "FAIL" in x and "emulated devices" in x)
    assert all(name in first for name in BOARDS)


def test_classes_that_fail_are_those_with_a_reason_to(farm: Boards) -> None:
    expected = {"qemu-haswell", "qemu-badboard"} | ({"host"} if sick_host(farm) else set())
    assert {c for c, x in farm.classes.items() if x["verdict"] == "fail"} == expected
    assert {x["verdict"] for c, x in farm.classes.items() if c not in expected} == {"pass"}


def test_the_reference_is_a_cpu_that_does_not_saturate(farm: Boards) -> None:
    device = "host" if farm.isa("host") & VNNI else "qemu-a72"
    for net in NETS:
        for file in ONNX:
            references = {
                r["reference"] for i, r in farm.rows.items() if i.startswith(f"{net}.{file}@")
            }
            assert references == {row(net, file, device)}


def test_u8s8_fails_on_haswell_and_nowhere_else(farm: Boards) -> None:
    """The finding this farm was built for: saturation without VNNI."""
    found = farm.rows[row("digits_ds", "u8s8", "qemu-haswell")]
    versus, known = found["vs_reference"], card("digits_ds.u8s8.onnx", "ort-haswell")
    assert found["verdict"] == "fail"
    for gate in ("G3", "G5", "G6", "G7"):
        assert farm.gate(found["id"], gate)["verdict"] == "fail", gate
    assert farm.gate(found["id"], "G0")["verdict"] == "pass"  # the planned kernels did run
    assert farm.gate(found["id"], "G2")["verdict"] == "pass"  # and are wrong the same way each time
    assert versus["disagreement"]["k"] == known["flips"] == 158
    assert versus["elements_different"] == known["elements"] / known["elements_of"] > 0.9
    assert versus["max_lsb"] == known["largest"]
    assert found["accuracy"]["k"] == CARD["correct"]["digits_ds.u8s8.onnx"]["ort-haswell"]
    failing = {
        r["device"]
        for i, r in farm.rows.items()
        if i.startswith("digits_ds.u8s8@") and r["verdict"] == "fail"
    }
    assert failing == {"qemu-haswell"} | ({"host"} if sick_host(farm) else set())


def test_the_plain_net_hides_in_its_accuracy_what_its_codes_show(farm: Boards) -> None:
    found = farm.rows[row("digits_cnn", "u8s8", "qemu-haswell")]
    known = card("digits_cnn.u8s8.onnx", "ort-haswell")
    assert farm.gate(found["id"], "G3")["verdict"] == "pass"
    assert farm.gate(found["id"], "G6")["verdict"] == "inconclusive"
    assert farm.gate(found["id"], "G7")["verdict"] == "fail"
    assert found["vs_reference"]["disagreement"]["k"] == known["flips"] == 4
    assert found["vs_reference"]["max_lsb"] == known["largest"]


@pytest.mark.parametrize("net", NETS)
def test_the_safe_variants_do_not_change_a_bit_on_haswell(farm: Boards, net: str) -> None:
    for file in ("u8u8", "u8s8_rr"):
        for device in ("qemu-haswell", "qemu-nehalem", "qemu-a72"):
            pair = farm.pair(row(net, file, device), row(net, file, "qemu-a76"))
            assert (pair["n"], pair["bit_exact_rate"]) == (1000, 1.0)
        assert farm.rows[row(net, file, "qemu-haswell")]["verdict"] == "pass"


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("file", [*ONNX, "int8"])
def test_arm_boards_agree_bit_for_bit(farm: Boards, net: str, file: str) -> None:
    others = [*ARM[1:], "qemu-nehalem"]
    if not (sick_host(farm) and file == "u8s8"):
        others.append("host")
    for device in others:
        pair = farm.pair(row(net, file, ARM[0]), row(net, file, device))
        assert (pair["n"], pair["bit_exact_rate"], pair["max_lsb"]) == (1000, 1.0, 0), device


@pytest.mark.parametrize("net", NETS)
def test_the_bad_board_fails_litert_and_nothing_else(farm: Boards, net: str) -> None:
    """A defective unit repeats its wrong answers: only the comparison finds it."""
    found = farm.rows[row(net, "int8", "qemu-badboard")]
    assert found["verdict"] == "fail"
    assert found["accuracy"]["rate"] < 0.2
    for gate in ("G3", "G5", "G6", "G7"):
        assert farm.gate(found["id"], gate)["verdict"] == "fail", gate
    assert farm.gate(found["id"], "G2")["verdict"] == "pass"
    for file in ONNX:
        assert farm.rows[row(net, file, "qemu-badboard")]["verdict"] == "pass"


@pytest.mark.isa
def test_the_causes_are_named_unaided(farm: Boards) -> None:
    """Saturation, a fault, and nothing: what is known of this farm, from its answers alone."""
    needs_exact(farm.isa("host"))
    run = farm.document["run"]["id"]

    def causes(device: str) -> dict[str, tuple[str, tuple[str, ...], str | None]]:
        done = assay("explain", "host", device, "--run", run, "--json", store=farm.store)
        assert done.code == 0, done.err
        return {
            f"{p['model']}.{p['file']}": (p["mechanism"], tuple(p["factors"]), p["blamed"])
            for p in done.json["pairs"]
            if {p["a"].rpartition("/")[2], p["b"].rpartition("/")[2]} <= set(RUNTIMES)
        }

    haswell = causes("qemu-haswell")
    saturates = {f"{net}.u8s8": ("saturation", ("core",), "qemu-haswell/ort") for net in NETS}
    assert {k: v for k, v in haswell.items() if v[0] != "identical"} == saturates
    bad = causes("qemu-badboard")
    faults = {f"{net}.int8": ("fault", ("core",), "qemu-badboard/litert") for net in NETS}
    assert {k: v for k, v in bad.items() if v[0] != "identical"} == faults
    for arm in ARM:
        assert {v[0] for v in causes(arm).values()} == {"identical"}


def test_every_number_leads_to_attempts(farm: Boards) -> None:
    ours = {a.info.id for a in farm.attempts.values()}
    baselines = set()
    for found in farm.rows.values():
        assert len(set(found["attempts"]) & ours) == 2  # clean, repeat:100
        for gate in found["gates"]:
            if gate["verdict"] in ("pass", "fail"):
                assert set(gate["attempts"]) & set(found["attempts"]), (found["id"], gate["gate"])
                baselines |= set(gate["attempts"]) - ours
    assert len(baselines) == len(NETS)  # one FP32 parent each, run once


def test_every_attempt_says_what_it_ran_on(farm: Boards) -> None:
    for attempt in farm.attempts.values():
        environment = attempt.environment
        assert environment["ort_disable_telemetry"] == "1"
        assert environment["threads"] == 1
        assert environment["kernel"]
        assert environment["os"]
        runtime, library = environment["runtime"], _library(attempt)
        assert (runtime["name"], runtime["version"]) == (library, CARD["versions"][_wheel(library)])
        assert re.fullmatch("[0-9a-f]{64}", runtime["native_sha256"])
        if attempt.device == "host":
            assert environment["isa_flags"]
            assert environment["cores"]
            continue
        board = BOARDS[attempt.device]
        said = environment["board"]
        assert (said["class"], said["emulated"]) == (attempt.device, True)
        assert said["qemu"].startswith(board["qemu"]["version"])
        assert environment["isa_flags"] == sorted(set(board["cpuinfo"]["features"].split()))
        assert len(environment["cores"]) == board["ncpu"]
        assert all(_is_core(core, board["cpuinfo"]) for core in environment["cores"])


def _library(attempt: Attempt) -> str:
    return {"ort": "onnxruntime", "litert": "litert"}[attempt.runtime]


def _wheel(library: str) -> str:
    return {"litert": "ai-edge-litert"}.get(library, library)


def _is_core(core: dict[str, str], cpu: dict[str, Any]) -> bool:
    if "part" in cpu:
        return int(core["CPU part"], 16) == int(cpu["part"])
    return [int(core["cpu family"]), int(core["model"])] == [int(cpu["family"]), int(cpu["model"])]


def test_every_attempt_says_which_kernels_ran(farm: Boards) -> None:
    plans: dict[tuple[str, str], set[str]] = {}
    for attempt in farm.attempts.values():
        backend = attempt.result["backend"]
        assert backend["fallbacks"] == []
        if attempt.runtime == "litert":
            assert backend["nodes"]["XNNPACK"] > 0
            assert backend["plan_sha256"] is None
            continue
        assert set(backend["nodes"]) == {"CPUExecutionProvider"}
        assert backend["nodes"]["CPUExecutionProvider"] > 0
        assert re.fullmatch("[0-9a-f]{64}", backend["plan_sha256"])
        model = attempt.result["model_sha256"]
        plans.setdefault((attempt.device, model), set()).add(backend["plan_sha256"])
    assert all(len(found) == 1 for found in plans.values())  # clean and repeat ran the same plan
    assert len({next(iter(found)) for found in plans.values()}) >= len(NETS) * len(ONNX)


def test_every_board_was_watched(farm: Boards) -> None:
    for attempt in farm.attempts.values():
        if attempt.device == "host":
            continue
        board, telemetry = BOARDS[attempt.device], attempt.result["telemetry"]
        assert telemetry["samples"] >= 2
        for when in ("start", "end", "max"):
            temps = [v for k, v in telemetry[when].items() if k.startswith("temp/")]
            freqs = [v for k, v in telemetry[when].items() if k.startswith("freq/")]
            assert len(temps) == 1
            assert board["thermal"]["ambient_c"] < temps[0] < board["thermal"]["critical_c"] + 10
            assert len(freqs) == board["ncpu"]
            assert set(freqs) <= set(board["frequencies_khz"])
    assert {t["row"] for t in farm.document["traces"]} >= set(farm.rows)
    latency = farm.document["latency"]
    assert {i for i in farm.rows if latency[i]["emulated"]} == {
        i for i, r in farm.rows.items() if r["device"] != "host"
    }


def test_without_the_policys_word_no_emulated_class_can_pass(farm: Boards, tmp_path: Path) -> None:
    policy = yaml.safe_load(POLICY.read_text())
    policy["accept_emulated"] = False
    (tmp_path / "real-only.yaml").write_text(yaml.safe_dump(policy))
    again = ("signoff", farm.document["run"]["id"], "--policy", tmp_path / "real-only.yaml")
    done = assay(*again, "--json", store=farm.store)
    judged = Boards(Judged(done, farm.store))
    emulated = {c: x["verdict"] for c, x in judged.classes.items() if x["emulated"]}
    assert set(emulated) == set(BOARDS)
    assert "pass" not in emulated.values()
    assert emulated["qemu-a72"] == "inconclusive"
    assert emulated["qemu-badboard"] == "fail"  # what failed stays failed
    assert "includes emulated" not in judged.reasons[0]
    assert not any(r["is_reference"] and r["emulated"] for r in judged.rows.values())
    healthy = judged.rows[row("digits_ds", "u8u8", "qemu-a72")]
    assert any("emulated, which the policy does not accept" in x for x in healthy["reasons"])


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    """100 samples on two boards whose sensors are driven: one pinned, one taken away."""
    folder = tmp_path_factory.mktemp("hundred")
    matrix = yaml.safe_load(both(folder).read_text())
    for item in matrix["inputs"]:
        item["limit"] = 100
    (folder / "hundred.yaml").write_text(yaml.safe_dump(matrix))
    select = [x for d in ("host", *DRIVEN) for x in ("--select", f"{d}-digits_cnn.u8u8-*")]
    try:
        for device, setting in DRIVEN.items():
            drive(device, *setting)
        done = assay("run", folder / "hundred.yaml", *select, "--json", store=folder / "store")
        yield Judged(done, folder / "store")
    finally:
        for device in DRIVEN:
            drive(device, "temp_c=auto", "sensor_missing=auto")


DRIVEN = {"qemu-a72": ("temp_c=61.5",), "qemu-haswell": ("sensor_missing=1",)}


def drive(device: str, *settings: str) -> None:
    command = [sys.executable, "-m", "infra.virtual_farm", "set", device, *settings]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_small_sample_without_a_single_flip_proves_nothing(hundred: Judged) -> None:
    assert (hundred.verdict, hundred.done.code) == ("inconclusive", 5)
    compared = [i for i, r in hundred.rows.items() if r["reference"] != i]
    assert len(hundred.rows) == 3
    assert len(compared) == 2
    for id in compared:
        gate = hundred.gate(id, "G6")
        assert (gate["observed"], gate["n"], gate["verdict"]) == (0, 100, "inconclusive")
        assert gate["bound"] > gate["limit"] == 0.005
        assert "even without events that takes 598 samples" in gate["reason"]
        assert hundred.gate(id, "G7")["verdict"] == "inconclusive"
        assert hundred.gate(id, "G2")["verdict"] == "pass"
        assert hundred.gate(id, "G5")["verdict"] == "pass"  # 0 of 100 does show at most 5 %
        assert hundred.rows[id]["verdict"] == "inconclusive"


def test_temperatures_come_from_the_boards_own_sensors(hundred: Judged) -> None:
    for attempt in hundred.attempts.values():
        telemetry = attempt.result["telemetry"]
        temps = {
            telemetry[when][k]
            for when in ("start", "end", "max")
            for k in telemetry[when]
            if k.startswith("temp/")
        }
        if attempt.device == "qemu-a72":
            assert temps == {61.5}
        if attempt.device == "qemu-haswell":
            assert temps == {None}  # unreadable, and never 0
