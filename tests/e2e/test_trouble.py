"""Devices in trouble: the verdict is never pass or fail for it, and other devices go on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.analysis.document import schema
from tests.support import sshd
from tests.support.cli import Done, Running, assay, start, until
from tests.support.tiny import MODELS, QUICKSTART, Tiny

for_ever = {"times": None}
needs_sshd = pytest.mark.skipif(sshd.MISSING is not None, reason=str(sshd.MISSING))


def attempts(document: Any, device: str) -> list[tuple[str, str | None]]:
    """(outcome, error ID) of every attempt of a device, in order."""
    mine = [a for a in document["attempts"] if a["device"] == device]
    return [(a["outcome"], a["error_id"]) for a in sorted(mine, key=lambda a: a["number"])]


def row(document: Any, device: str) -> Any:
    (found,) = (r for r in document["rows"] if r["device"] == device)
    return found


def script(folder: Path, name: str, text: str) -> str:
    """An "interpreter" of ours."""
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def old_pythons() -> Iterator[Path]:
    for name in ("python3.8", "python3.7", "python3.6"):
        yield from sorted(Path("~/.pyenv/versions").expanduser().glob(f"3.[678].*/bin/{name}"))
        yield Path("/usr/bin") / name


OLD = next((p for p in old_pythons() if p.exists()), None)

# Many devices, one run ---------------------------------------------------------------------------

FAULTS: dict[str, list[dict[str, Any]]] = {
    "drop": [{"kind": "drop", "on": "read", "after": 2} | for_ever],
    "garbage": [{"kind": "garbage", "on": "read"} | for_ever],
    "huge-line": [{"kind": "huge_line", "on": "read"} | for_ever],
    "disk-full": [{"kind": "disk_full", "on": "push"}],
    "disk-full-later": [{"kind": "disk_full", "on": "push", "after": 1}],
    "corrupt": [{"kind": "corrupt", "on": "push", "after": 1} | for_ever],
    "corrupt-bundle": [{"kind": "corrupt", "on": "push"} | for_ever],
    "hiccup": [{"kind": "drop", "on": "read", "after": 2}],
    "litter": [{"kind": "garbage", "on": "read", "after": 1, "times": 3}],
}
GIBIBYTE = "exec head -c 1073741824 /dev/zero"
EXPECTED: dict[str, tuple[str, int]] = {
    "drop": ("E-LINK", 3),
    "garbage": ("E-WORKER-GARBAGE", 3),
    "huge-line": ("E-WORKER-GARBAGE", 3),
    "gibibyte": ("E-WORKER-GARBAGE", 3),
    "disk-full": ("E-DISK-FULL", 1),
    "disk-full-later": ("E-DISK-FULL", 1),
    "corrupt": ("E-CACHE-HASH", 3),
    "corrupt-bundle": ("E-WORKER-HASH", 3),
    "no-python": ("E-DEVICE-PYTHON", 1),
    "old-python": ("E-PYTHON-OLD", 1),
    "dying": ("E-WORKER-DIED", 3),
    "unreachable": ("E-SSH-UNREACHABLE", 3),
    "hostkey": ("E-SSH-HOSTKEY", 1),
    "stranger": ("E-SSH-HOSTKEY-UNKNOWN", 1),
    "auth": ("E-SSH-AUTH", 1),
}
"""Device → error ID of its attempts and how many there are: retried only where that can help."""

SOUND = ("bench", "hiccup", "litter", "ssh")


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """The outcome of one run over all of them."""
    folder = tmp_path_factory.mktemp("trouble")
    tiny = Tiny(folder / "matrix")
    python = sys.executable
    for name, faults in FAULTS.items():
        tiny.devices.append(tiny.fake(name, *faults))
    for name, path in {
        "gibibyte": script(folder, "gibibyte", GIBIBYTE),
        "no-python": "/nowhere/python3",
        "dying": script(folder, "dying", "echo 'out of luck' >&2; exit 3"),
        "old-python": str(OLD) if OLD else None,
    }.items():
        if path is not None:
            tiny.devices.append(tiny.device(name, python={"default": path}))
    with ExitStack() as stack:
        if sshd.MISSING is None:
            server = stack.enter_context(sshd.running(folder / "sshd"))
            sshd.keygen(folder / "other")
            other = (folder / "other.pub").read_text().rsplit(" ", 1)[0]
            (folder / "wrong_hosts").write_text(f"[127.0.0.1]:{server.port} {other}\n")
            reached: dict[str, dict[str, Any]] = {
                "ssh": {},
                "unreachable": {"port": 9},
                "hostkey": {"known_hosts": str(folder / "wrong_hosts")},
                "stranger": {"known_hosts": str(folder / "no_hosts")},
                "auth": {"key": str(folder / "other")},
            }
            for name, changes in reached.items():
                settings = server.settings(root=str(folder / name), **changes)
                tiny.devices.append(
                    tiny.device(name, transport=settings.model_dump(), python={"default": python})
                )
        yield assay("run", tiny.write(), "--json", store=folder / "store")


def test_infrastructure_trouble_is_error_and_exit_3(troubled: Done) -> None:
    assert (troubled.code, troubled.json["verdict"]) == (3, "error")
    jsonschema.Draft202012Validator(schema()).validate(troubled.json)


def test_no_device_in_trouble_passes_or_fails(troubled: Done) -> None:
    found = {r["device"]: r["verdict"] for r in troubled.json["rows"]}
    assert {d: v for d, v in found.items() if d not in SOUND} == dict.fromkeys(
        set(found) - set(SOUND), "error"
    )


@pytest.mark.parametrize("device", EXPECTED)
def test_every_attempt_is_recorded_with_its_reason(troubled: Done, device: str) -> None:
    if device == "old-python" and OLD is None:
        pytest.skip("no Python older than 3.9 here")
    if device in ("unreachable", "hostkey", "stranger", "auth") and sshd.MISSING:
        pytest.skip(sshd.MISSING)
    error_id, count = EXPECTED[device]
    assert attempts(troubled.json, device) == [("infra_error", error_id)] * count
    for attempt in troubled.json["attempts"]:
        if attempt["device"] == device:
            assert attempt["error"].count("\n") == 0
            assert attempt["error"].count("[E-") == 1
            assert device in attempt["error"]
    (reason,) = row(troubled.json, device)["reasons"]
    assert "says nothing about the model" in reason
    assert error_id in reason


@pytest.mark.parametrize("device", SOUND)
def test_the_other_devices_complete(troubled: Done, device: str) -> None:
    if device == "ssh" and sshd.MISSING:
        pytest.skip(sshd.MISSING)
    found = row(troubled.json, device)
    assert (found["accuracy"]["k"], found["accuracy"]["n"]) == (20, 20)
    if device != "bench":
        # Measured, though inconclusive: classes without a reference of their own cannot pass.
        assert found["vs_reference"]["bit_exact"]["rate"] == 1.0


def test_a_passing_fault_is_tried_again(troubled: Done) -> None:
    assert attempts(troubled.json, "hiccup") == [("infra_error", "E-LINK"), ("ok", None)]
    assert attempts(troubled.json, "litter") == [("ok", None)]


# What must be watched while it happens -----------------------------------------------------------


def working(root: Path) -> list[Path]:
    """Folders of attempts whose samples are being run."""
    return [p.parent for p in root.glob("out/*/*")]


def worker_pid(root: Path) -> int:
    (pid,) = json.loads((root / "lease.json").read_text())["pids"]
    return int(pid)


def begun(tiny: Tiny, store: Path) -> Running:
    """A run whose first cell is in the middle of its repeats."""
    running = start("run", tiny.write(), "--json", store=store)
    until(lambda: working(tiny.root()), "a cell at work")
    return running


def test_a_worker_killed_for_memory_is_tried_again(tiny: Tiny, store: Path) -> None:
    tiny.repeat(5_000)
    running = begun(tiny, store)
    os.kill(worker_pid(tiny.root()), signal.SIGKILL)
    done = running.wait()
    assert attempts(done.json, "bench") == [("infra_error", "E-WORKER-KILLED"), ("ok", None)]
    assert "out-of-memory" in done.err
    assert row(done.json, "bench")["repeat"] == {"count": 5_000, "samples": 8, "mismatches": 0}
    assert done.code == 0


def test_a_worker_killed_every_time_is_an_error(tiny: Tiny, store: Path) -> None:
    tiny.repeat(100_000, retry=0)
    running = begun(tiny, store)
    os.kill(worker_pid(tiny.root()), signal.SIGKILL)
    done = running.wait()
    assert (done.code, row(done.json, "bench")["verdict"]) == (3, "error")
    assert attempts(done.json, "bench") == [("infra_error", "E-WORKER-KILLED")]


def test_a_device_without_memory(tiny: Tiny, store: Path) -> None:
    # From the moment a cached file is opened for reading, the worker gets no more address space.
    hook = tiny.folder / "hook"
    hook.mkdir(parents=True)
    (hook / "sitecustomize.py").write_text(
        "import resource, sys\n"
        "def hook(event, args):\n"
        "    if event == 'open' and '/cache/' in str(args[0]) and 'numpy' in sys.modules:\n"
        "        with open('/proc/self/statm') as file:\n"
        "            used = int(file.read().split()[0]) * resource.getpagesize()\n"
        "        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20),) * 2)\n"
        "sys.addaudithook(hook)\n"
    )
    tiny.inputs.update(path=str(QUICKSTART / "digits_32x32.npz"), limit=1000)
    tiny.matrix["models"][0]["fp32"] = None
    tiny.file["path"] = str(MODELS / "digits_ds.u8s8.onnx")
    tiny.matrix["retry"] = {"infra": 0}
    tiny.devices[0]["env"] = {"PYTHONPATH": str(hook)}
    done = assay("run", tiny.write(), "--json", store=store)
    assert attempts(done.json, "bench") == [("infra_error", "E-WORKER-OOM")]
    assert done.code == 3


@pytest.mark.parametrize("how", ["in-place", "replaced"])
def test_a_model_that_changes_on_the_device_during_a_cell(
    tiny: Tiny, store: Path, how: str
) -> None:
    tiny.repeat(5_000)
    model = MODELS / "digits_cnn.u8s8.onnx"
    sha = hashlib.sha256(model.read_bytes()).hexdigest()
    running = begun(tiny, store)
    cached = tiny.root() / "cache" / sha[:2] / sha
    other = (MODELS / "digits_cnn.u8u8.onnx").read_bytes()
    if how == "in-place":
        cached.chmod(0o644)
        cached.write_bytes(other)
    else:
        (tiny.root() / "draft").write_bytes(other)
        (tiny.root() / "draft").replace(cached)
    done = running.wait()
    assert attempts(done.json, "bench") == [("infra_error", "E-MODEL-CHANGED"), ("ok", None)]
    # What counts is the second attempt, for which the right bytes were sent again.
    assert [a["bytes_pushed"] for a in done.json["attempts"]][-1] == model.stat().st_size
    assert hashlib.sha256(cached.read_bytes()).hexdigest() == sha


def test_a_cell_that_takes_too_long_is_a_timeout(tiny: Tiny, store: Path) -> None:
    tiny.repeat(100_000)
    tiny.matrix["timeouts"] = {"cell": "1s"}
    done = assay("run", tiny.write(), "--json", store=store)
    assert (done.code, done.json["verdict"]) == (4, "timeout")
    assert attempts(done.json, "bench") == [("timeout", "E-CELL-TIMEOUT")]
    # What the attempt left there goes with the next lease.
    assert working(tiny.root())
    tiny.matrix["conditions"] = ["clean"]
    assert assay("run", tiny.write(), store=store).code == 0
    assert not working(tiny.root())


def test_a_device_that_falls_silent_is_a_timeout(tiny: Tiny, store: Path) -> None:
    for_ever = {"kind": "stall", "on": "read", "after": 3, "times": None}
    tiny.devices = [tiny.fake("bench", for_ever)]
    tiny.matrix["timeouts"] = {"silence": "1s"}
    done = assay("run", tiny.write(), "--json", store=store)
    assert (done.code, done.json["verdict"]) == (4, "timeout")
    assert attempts(done.json, "bench") == [("timeout", "E-SILENCE")]


def test_a_silence_that_ends_was_the_links(tiny: Tiny, store: Path) -> None:
    tiny.devices = [tiny.fake("bench", {"kind": "stall", "on": "read", "after": 3})]
    tiny.matrix["timeouts"] = {"silence": "1s"}
    done = assay("run", tiny.write(), "--json", store=store)
    assert (done.code, done.json["verdict"]) == (0, "pass")
    assert attempts(done.json, "bench") == [("infra_error", "E-LINK"), ("ok", None)]


def test_a_runtime_that_is_not_there_is_not_covered(tiny: Tiny, store: Path) -> None:
    tiny.file.update(path=str(MODELS / "digits_cnn.int8.tflite"), layout="same")
    tiny.matrix["runtimes"] = [
        {"name": "ort", "runtime": "litert"},
        {"name": "old", "runtime": "tflite-runtime"},
    ]
    tiny.devices[0]["python"] = {"onnxruntime": sys.executable, "litert": sys.executable}
    done = assay("run", tiny.write(), store=store)
    assert done.code == 5
    (line,) = (x for x in done.out.splitlines() if x.startswith("cnn.u8s8") and "  old  " in x)
    assert "not available here" in line
    assert "no Python for tflite-runtime in the inventory" in line
    outcome = {a["cell"]: a for a in _logs(store)}
    assert outcome["bench-cnn.u8s8-digits-clean-old"]["error_id"] == "E-RUNTIME-MISSING"
    assert outcome["bench-cnn.u8s8-digits-clean-ort"]["outcome"] == "ok"


def _logs(store: Path) -> Any:
    return assay("logs", "--json", store=store).json["attempts"]


def test_a_device_whose_clock_is_years_off(tiny: Tiny, store: Path) -> None:
    hook = tiny.folder / "hook"
    hook.mkdir(parents=True)
    (hook / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ntime.time = lambda: real() - 10 * 365 * 86400\n"
    )
    tiny.devices[0]["env"] = {"PYTHONPATH": str(hook)}
    tiny.devices.append(tiny.device("right"))
    done = assay("run", tiny.write(), "--json", store=store)
    by_device = {a["device"]: a for a in done.json["attempts"]}
    wrong, right = by_device["bench"], by_device["right"]
    assert row(done.json, "bench")["verdict"] == "pass"
    assert wrong["notes"][-1] == "device clock off by -315,360,000 s"
    assert not [note for note in right["notes"] if "clock off" in note]
    assert "bench: device clock off by -315,360,000 s" in done.err
    # The times kept are the coordinator's own.
    assert abs(wrong["started_unix"] - right["started_unix"]) < 60
    assert done.json["latency"]["cnn.u8s8@bench/ort"]["timing_valid"]


def test_a_device_whose_disk_is_really_full(tiny: Tiny, store: Path) -> None:
    root = tiny.root()
    root.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "assay-test", str(root)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        (root / "ballast").write_bytes(bytes(192 << 10))
        done = assay("run", tiny.write(), "--json", store=store)
        left = [p for p in root.rglob("*") if p.is_file() and p.name != "ballast"]
        (root / "ballast").unlink()
        again = assay("run", tiny.write(), "--json", store=store)
    finally:
        subprocess.run(["umount", str(root)], check=True)
    assert done.code == 3
    assert attempts(done.json, "bench") == [("infra_error", "E-DISK-FULL")]
    assert not [p for p in left if "worker" not in str(p) and "lease" not in p.name], left
    assert (again.code, row(again.json, "bench")["verdict"]) == (0, "pass")
