"""The command line as people and scripts meet it, against one small finished run."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.analysis.document import schema
from tests.support.cli import ASSAY, REPO, assay
from tests.support.tiny import MODELS, Tiny


@dataclass(frozen=True)
class Farm:
    """A store in which a run over two devices has ended."""

    tiny: Tiny
    matrix: Path
    store: Path
    run: str
    document: Any
    err: str


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    folder = tmp_path_factory.mktemp("farm")
    tiny = Tiny(folder / "matrix")
    tiny.devices.append(tiny.device("spare", **{"class": "class-bench"}))
    matrix, store = tiny.write(), folder / "store"
    done = assay("run", matrix, "--json", store=store)
    assert done.code == 0, done
    return Farm(tiny, matrix, store, done.json["run"]["id"], done.json, done.err)


# Help, completion, version -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["plan"], ["plan", "--frob", "x"], ["run", "x", "--executor", "cloud"]],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str]) -> None:
    assay(*arguments).refused(2, "E-USAGE", "--help")


def test_no_command_at_all_shows_the_help() -> None:
    done = assay()
    assert done.code == 2
    assert "Sign off:" in done.err + done.out


def in_bash(line: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{ASSAY.parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--norc", "-c", line],
        env={"HOME": str(home), "PATH": path, **env},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_completion_shows_installs_and_completes(tmp_path: Path) -> None:
    shown = in_bash("assay --show-completion bash || assay --show-completion; true", tmp_path)
    assert "_ASSAY_COMPLETE=complete_bash" in shown.stdout, shown
    installed = in_bash("assay --install-completion bash || assay --install-completion", tmp_path)
    assert installed.returncode == 0, installed
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any("complete_bash" in p.read_text() for p in files), files
    words = in_bash(
        "assay", tmp_path, _ASSAY_COMPLETE="complete_bash", COMP_WORDS="assay s", COMP_CWORD="1"
    )
    assert set(words.stdout.split()) == {"signoff", "sql", "status", "store", "submit"}


def test_version() -> None:
    found = assay("version", "--json").json
    assert found["schema"] == "assay.version/1"
    assert assay("version").out == f"assay {found['assay']}\n"


# Looking -----------------------------------------------------------------------------------------


def test_plan_prints_cells_and_touches_nothing(farm: Farm, tmp_path: Path) -> None:
    text = assay("plan", farm.matrix, store=tmp_path / "none")
    assert text.out.splitlines() == [
        "bench-cnn.u8s8-digits-clean-ort",
        "spare-cnn.u8s8-digits-clean-ort",
        "2 cells on 2 devices, 40 inferences",
    ]
    found = assay("plan", farm.matrix, "--select", "spare-*", "--json").json
    assert (found["schema"], found["inferences"]) == ("assay.plan/1", 20)
    assert [c["id"] for c in found["cells"]] == ["spare-cnn.u8s8-digits-clean-ort"]
    assert not (tmp_path / "none").exists()


def test_the_run_printed_a_valid_document(farm: Farm) -> None:
    jsonschema.Draft202012Validator(schema()).validate(farm.document)
    assert farm.document["schema"] == "assay.result/1"
    assert farm.document["verdict"] == "pass"
    notes = [note for attempt in farm.document["attempts"] for note in attempt["notes"]]
    # Clocks may move here, and there may be no sensor to watch.
    assert not [
        note for note in notes if not re.search(r" moved |the ceiling .* not watched", note)
    ]
    lines = farm.err.splitlines()
    assert [re.sub(r"^\S+Z  ", "", line).split("  ")[0] for line in lines[:2]] == [
        "2 cells",
        f"run {farm.run}",
    ]
    assert {re.sub(r"^\S+Z  ", "", line)[:3] for line in lines[2:4]} == {"1/2", "2/2"}
    assert lines[-1] == f"Report: {farm.store}/reports/{farm.run}.html"


def test_status(farm: Farm) -> None:
    found = assay("status", "--json", store=farm.store).json
    assert (found["schema"], found["leases"]) == ("assay.status/1", [])
    (run,) = found["runs"]
    assert (run["id"], run["state"], run["cells"]["done"]) == (farm.run, "done", 2)
    text = assay("status", farm.run[:13], store=farm.store)
    assert text.out == f"{farm.run}  done  2 done  (2 ok)\n"
    listed = assay("status", "--all", store=farm.store)
    assert listed.out == text.out
    assay("status", "nosuchrun", store=farm.store).refused(2, "E-RUN-UNKNOWN", "nosuchrun")


def test_logs(farm: Farm) -> None:
    found = assay("logs", "--json", store=farm.store).json
    assert found["schema"] == "assay.logs/1"
    assert {a["device"]: a["outcome"] for a in found["attempts"]} == {"bench": "ok", "spare": "ok"}
    (line,) = assay("logs", "--select", "spare-*", store=farm.store).out.splitlines()
    assert "  spare-cnn.u8s8-digits-clean-ort  #1  spare  ok  " in line


def test_logs_tell_the_error(tiny: Tiny, store: Path) -> None:
    tiny.devices = [tiny.device("bench", python={"default": "/nowhere/python"})]
    assert assay("run", tiny.write(), store=store).code == 3
    (line,) = assay("logs", store=store).out.splitlines()
    assert line.endswith("[E-DEVICE-PYTHON]")
    (found,) = assay("logs", "--json", store=store).json["attempts"]
    assert (found["outcome"], found["error_id"]) == ("infra_error", "E-DEVICE-PYTHON")


def test_devices_list(farm: Farm) -> None:
    inventory = farm.matrix.with_name("inventory.yaml")
    found = assay("devices", "list", "-i", inventory, "--json").json
    assert found["schema"] == "assay.devices/1"
    assert [(d["name"], d["class"], d["transport"]) for d in found["devices"]] == [
        ("bench", "class-bench", "local"),
        ("spare", "class-bench", "local"),
    ]
    lines = assay("devices", "list", "-i", inventory).out.splitlines()
    assert [line.split()[0] for line in lines] == ["bench", "spare"]
    assert assay("devices", "list", cwd=REPO).code == 0
    elsewhere = assay("devices", "list", cwd=farm.store)
    elsewhere.refused(2, "E-INVENTORY-MISSING", "--inventory")


def test_variance(farm: Farm) -> None:
    found = assay("variance", "--json", store=farm.store).json
    assert found["schema"] == "assay.result/1"
    (pair,) = found["pairs"]
    assert (pair["bit_exact_rate"], pair["n"]) == (1.0, 20)
    assert "bit-identical" in assay("variance", store=farm.store).out


def test_signoff_repeats_the_verdict(farm: Farm) -> None:
    again = assay("signoff", "--json", store=farm.store)
    assert again.code == 0
    assert again.json == farm.document


def test_signoff_under_another_policy_leaves_the_runs_own_verdict(
    farm: Farm, tmp_path: Path
) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text(
        yaml.safe_dump(
            farm.tiny.policy
            | {"name": "strict", "gates": {"G2": {"enabled": True, "min_repeats": 100}}}
        )
    )
    other = assay("signoff", "--policy", strict, "--json", store=farm.store)
    assert (other.code, other.json["verdict"]) == (5, "inconclusive")
    assert other.json["policy"]["name"] == "strict"
    assert "G2 repeatability: no repeats" in str(other.json["reasons"])
    assert assay("signoff", "--json", store=farm.store).json["policy"]["name"] == "tiny"
    strict.write_text("name: strict\nreference: []\ngatez: {}\n")
    bad = assay("signoff", "--policy", strict, store=farm.store)
    bad.refused(2, "E-MATRIX-KEY", "strict.yaml:3", "gatez")


def test_report_is_one_file(farm: Farm, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "report.html"
    assert assay("report", "--out", out, store=farm.store).out == f"{out}\n"
    text = out.read_text()
    assert farm.run in text
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", text)
    assert list(out.parent.iterdir()) == [out]
    found = assay("report", "--json", "--out", out, store=farm.store).json
    assert found == {
        "schema": "assay.report/1",
        "run": farm.run,
        "verdict": farm.document["verdict"],
        "report": str(out),
    }
    where = assay("report", store=farm.store).out.strip()
    assert Path(where) == farm.store / "reports" / f"{farm.run}.html"
    refused = assay("report", "--out", tmp_path, store=farm.store)
    refused.refused(2, "E-REPORT-WRITE", "Is a directory")


COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|38;[0-9;]+|9[0-7])[0-9;]*m")


def on_a_terminal(farm: Farm, **env: str) -> str:
    """What `assay signoff` shows on a terminal."""
    ours, theirs = pty.openpty()
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [ASSAY, "signoff", "--store", farm.store],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.STDOUT,
        env={**plain, "TERM": "xterm-256color", "COLUMNS": "120", **env},
    ):
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 1 << 16):
                shown += data
        except OSError:
            pass  # how Linux says that the terminal's other end is closed
    os.close(ours)
    return shown.decode()


def test_colour_on_a_terminal_unless_no_color(farm: Farm) -> None:
    assert COLOUR.search(on_a_terminal(farm))
    plain = on_a_terminal(farm, NO_COLOR="1")
    assert not COLOUR.search(plain)
    assert "PASS" in plain
    assert "\x1b" not in assay("signoff", store=farm.store).out


# Moving work -------------------------------------------------------------------------------------


def test_submit_only_queues_and_resume_works_it_off(tiny: Tiny, store: Path) -> None:
    matrix = tiny.write()
    submitted = assay("submit", matrix, "--json", store=store).json
    assert (submitted["schema"], submitted["cells"]) == ("assay.submitted/1", 1)
    (run,) = assay("status", "--json", store=store).json["runs"]
    assert (run["id"], run["state"]) == (submitted["run"], "queued")
    assert run["cells"]["pending"] == 1
    assert not tiny.root().exists()
    unfinished = assay("signoff", "--json", store=store)
    assert (unfinished.code, unfinished.json["verdict"]) == (5, "inconclusive")
    assert unfinished.json["coverage"]["pending"] == 1
    done = assay("resume", submitted["run"], "--json", store=store)
    assert (done.code, done.json["run"]["id"]) == (0, submitted["run"])
    # Nothing is left to do: the same verdict once more, no further attempt.
    again = assay("resume", "--json", store=store)
    assert again.code == 0
    assert len(again.json["attempts"]) == 1
    assert assay("signoff", "--json", store=store).json["verdict"] == "pass"


def pushed(document: Any) -> list[int]:
    return [a["bytes_pushed"] for a in document["attempts"]]


def test_a_second_run_sends_nothing(tiny: Tiny, store: Path) -> None:
    matrix = tiny.write()
    first, second = (assay("run", matrix, "--json", store=store).json for _ in range(2))
    model = MODELS / "digits_cnn.u8s8.onnx"
    assert pushed(first)[0] > model.stat().st_size
    assert pushed(second) == [0]
    # Damage in the device's cache is found by hashing, and only that file is sent again.
    (cached,) = (
        p for p in tiny.root().glob("cache/*/*") if p.stat().st_size == model.stat().st_size
    )
    cached.chmod(0o644)
    cached.write_bytes(cached.read_bytes()[:-1] + b"\0")
    third = assay("run", matrix, "--json", store=store).json
    assert pushed(third) == [model.stat().st_size]
    assert [d["rows"][0]["accuracy"] for d in (second, third)] == [first["rows"][0]["accuracy"]] * 2


def test_two_executors_one_answer(farm: Farm, tmp_path: Path) -> None:
    env = {"ASSAY_EXECUTOR": "ray"}
    done = assay("run", farm.matrix, "--json", store=tmp_path / "ray", env=env)
    assert done.code == 0, done.err
    assert [r["fp32"] for r in done.json["rows"]] == [r["fp32"] for r in farm.document["rows"]]
    assert done.err.splitlines()[0].endswith("  2 cells")  # nothing of Ray's own


def test_select_takes_cells_away(farm: Farm, tmp_path: Path) -> None:
    done = assay("run", farm.matrix, "-s", "!spare-*", "--json", store=tmp_path / "store")
    assert [a["device"] for a in done.json["attempts"]] == ["bench"]


# The store ---------------------------------------------------------------------------------------


def test_store_upgrade(farm: Farm, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(farm.store, store)
    current = assay("store", "upgrade", "--json", store=store).json
    assert current["schema"] == "assay.store-upgrade/1"
    assert current["from"] == current["to"]
    assert "nothing to do" in assay("store", "upgrade", store=store).out
    # An empty database is older than everything.
    (store / "assay.db").unlink()
    for side in store.glob("assay.db-*"):
        side.unlink()
    with closing(sqlite3.connect(store / "assay.db")) as database:
        database.execute("VACUUM")
    assert assay("store", "upgrade", store=store).out == f"schema none -> {current['to']}\n"
    assay("status", store=store).refused(2, "E-RUN-UNKNOWN")
    assay("store", "upgrade", store=tmp_path / "none").refused(2, "E-STORE-MISSING")
    assert not (tmp_path / "none").exists()


def test_devices_trust_of_what_has_no_key(farm: Farm) -> None:
    inventory = farm.matrix.with_name("inventory.yaml")
    local = assay("devices", "trust", "bench", "-i", inventory)
    local.refused(2, "E-DEVICE-TRANSPORT", "nothing to trust")
    nobody = assay("devices", "trust", "toaster", "-i", inventory)
    nobody.refused(2, "E-DEVICE-NAME", "bench, spare")


def test_json_is_json_everywhere(farm: Farm) -> None:
    for command in ("status", "logs", "variance", "signoff"):
        text = assay(command, "--json", store=farm.store).out
        assert re.fullmatch(r"assay\.[a-z-]+/[12]", json.loads(text)["schema"]), command


def test_the_report_shows_what_ran_where(farm: Farm) -> None:
    (sha256, again) = (a["environment"] for a in farm.document["attempts"])
    assert sha256 == again  # two units, one machine
    shared = farm.document["environments"][sha256]
    assert shared["runtime"]["name"] == "onnxruntime"
    assert shared["isa_flags"]
    text = (farm.store / "reports" / f"{farm.run}.html").read_text()
    assert "No environment was recorded" not in text
    assert shared["runtime"]["version"] in text
