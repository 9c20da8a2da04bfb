"""Power modes on files that stand for sysfs, and on commands; restored whatever happens."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_worker import power, wire
from device_worker.arrays import Array
from device_worker.errors import EXIT_COORDINATOR_GONE, WorkerError
from device_worker.wire import PowerMode, Source
from tests.unit.device_worker.harness import WorkerProcess, gemm
from tests.unit.device_worker.test_measure import Bench, same

GOVERNOR = "governor"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "_TAKES_S", 0.2)
    monkeypatch.setattr(power, "_POLL_S", 0.02)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    root = tmp_path / "root"
    root.mkdir()
    return Bench(root, monkeypatch)


class Cpus:
    """Two CPUs with a governor each, below a folder that stands for /sys."""

    def __init__(self, folder: Path) -> None:
        self.paths = [folder / f"cpu{n}" / "cpufreq" / "scaling_governor" for n in range(2)]
        for path in self.paths:
            path.parent.mkdir(parents=True)
        self.glob = f"{folder}/cpu*/cpufreq/scaling_governor"
        self.set("ondemand")

    def set(self, *names: str) -> None:
        for path, name in zip(self.paths, names * (2 // len(names)), strict=True):
            path.write_text(name + "\n")

    def get(self) -> list[str]:
        return [path.read_text().strip() for path in self.paths]

    def mode(self, **changes: Any) -> PowerMode:
        known: dict[str, Any] = {
            "name": "save",
            "read": Source(GOVERNOR, [self.glob]),
            "expect": "powersave",
            "apply": [["write", self.glob, "powersave"]],
        }
        return PowerMode(**(known | changes))


@pytest.fixture
def cpus(tmp_path: Path) -> Cpus:
    return Cpus(tmp_path / "sys")


def pending(bench: Bench) -> Path:
    return bench.root / "power.json"


def refused(bench: Bench, mode: PowerMode) -> str:
    with pytest.raises(WorkerError) as caught:
        bench.run(power=mode)
    assert not (bench.root / "out" / "a1").exists()
    assert "\n" not in caught.value.what
    return f"{caught.value.kind} {caught.value.code}: {caught.value.what}"


def test_a_job_runs_in_the_mode_and_the_device_is_put_back(bench: Bench, cpus: Cpus) -> None:
    seen: list[list[str]] = []

    def look(call: int, x: Array) -> list[Any]:
        seen.append(cpus.get())
        assert pending(bench).exists(), "what is to be put back is on disk before anything changes"
        return same(call, x)

    bench.script(look)
    result = bench.run(power=cpus.mode())
    assert result.power == "powersave"
    assert set(map(tuple, seen)) == {("powersave", "powersave")}
    assert cpus.get() == ["ondemand", "ondemand"]
    assert not pending(bench).exists()


def test_a_mode_that_is_in_force_is_not_touched(bench: Bench, cpus: Cpus) -> None:
    cpus.set("powersave")
    before = [p.stat().st_mtime_ns for p in cpus.paths]
    bench.script(same)
    for mode in (cpus.mode(), cpus.mode(apply=[])):
        assert bench.run(power=mode).power == "powersave"
    assert [p.stat().st_mtime_ns for p in cpus.paths] == before


def test_without_leave_to_set_it_the_mode_is_not_covered(bench: Bench, cpus: Cpus) -> None:
    runtime = bench.script(same)
    text = refused(bench, cpus.mode(apply=[]))
    assert text.startswith("not_available E-POWER-MODE: power mode 'save' is not covered")
    assert "'ondemand'" in text
    assert runtime.calls == 0
    assert cpus.get() == ["ondemand", "ondemand"]


def test_one_cpu_in_another_mode_is_not_the_mode(bench: Bench, cpus: Cpus) -> None:
    cpus.set("powersave", "ondemand")
    bench.script(same)
    assert "'ondemand+powersave'" in refused(bench, cpus.mode(apply=[]))
    assert bench.run(power=cpus.mode()).power == "powersave"
    assert cpus.get() == ["powersave", "ondemand"], "each as it was"


def test_a_mode_that_cannot_be_read_cannot_be_verified(bench: Bench, cpus: Cpus) -> None:
    bench.script(same)
    mode = cpus.mode(read=Source(GOVERNOR, [cpus.glob + "-not"]))
    assert "does not say which mode" in refused(bench, mode)
    assert cpus.get() == ["ondemand", "ondemand"]


def test_a_mode_that_does_not_take(bench: Bench, cpus: Cpus) -> None:
    bench.script(same)
    mode = cpus.mode(apply=[["write", cpus.glob, "conservative"]])
    assert "did not take: the device says 'conservative'" in refused(bench, mode)
    assert cpus.get() == ["ondemand", "ondemand"]
    assert not pending(bench).exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["write", "/nonexistent/governor", "x"], "there is no /nonexistent/governor"),
        (["/nonexistent/nvpmodel", "-m", "1"], "No such file"),
        ([sys.executable, "-c", "import sys; sys.exit('no such mode')"], "ended with 1: no such"),
    ],
)
def test_a_command_that_fails_is_not_covered(
    bench: Bench, cpus: Cpus, command: list[str], says: str
) -> None:
    bench.script(same)
    assert says in refused(bench, cpus.mode(apply=[["write", cpus.glob, "powersave"], command]))
    assert cpus.get() == ["ondemand", "ondemand"], "half of a mode is put back too"


def test_a_failing_job_puts_the_device_back(bench: Bench, cpus: Cpus) -> None:
    def broken(call: int, x: Array) -> list[Any]:
        raise WorkerError("model_error", "E-MODEL-RUN", "broken")

    bench.script(broken)
    assert refused(bench, cpus.mode()).startswith("model_error E-MODEL-RUN")
    assert cpus.get() == ["ondemand", "ondemand"]


def test_a_mode_that_ends_during_the_run_spoils_it(bench: Bench, cpus: Cpus) -> None:
    def unplugged(call: int, x: Array) -> list[Any]:
        cpus.set("performance")
        return same(call, x)

    bench.script(unplugged)
    text = refused(bench, cpus.mode())
    assert text.startswith("infra_error E-POWER-LOST")
    assert "'performance'" in text
    assert cpus.get() == ["ondemand", "ondemand"]


def test_commands_and_the_mode_before(bench: Bench, tmp_path: Path) -> None:
    """As nvpmodel does: set by a command, put back by one that names the mode there was."""
    state = tmp_path / "mode"
    state.write_text("maxn")
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    show = f"print(open({str(state)!r}).read())"
    mode = PowerMode(
        "15w",
        Source(GOVERNOR, command=[sys.executable, "-c", show], timeout_s=20.0),
        "15w",
        [[sys.executable, "-c", code, str(state), "15w"]],
        [[sys.executable, "-c", code, str(state), "{before}"]],
    )
    bench.script(same)
    assert bench.run(power=mode).power == "15w"
    assert state.read_text() == "maxn"


# Recovery ------------------------------------------------------------------------------------


def left_behind(bench: Bench, cpus: Cpus, attempt: str = "dead") -> None:
    """What a worker leaves that was killed in the middle of a mode."""
    left_behind_by(bench.root, cpus, attempt)


def left_behind_by(root: Path, cpus: Cpus, attempt: str) -> None:
    power._keep(str(root), power._pending(cpus.mode(), "ondemand", attempt))
    cpus.set("powersave")


def test_the_next_one_puts_back_what_a_killed_one_left(bench: Bench, cpus: Cpus) -> None:
    left_behind(bench, cpus)
    bench.script(same)
    assert bench.run().power is None
    assert cpus.get() == ["ondemand", "ondemand"]
    assert not pending(bench).exists()


def test_a_zombie_does_not_end_its_successors_mode(bench: Bench, cpus: Cpus) -> None:
    left_behind(bench, cpus, attempt="successor")
    power.recover(str(bench.root), attempt="zombie")
    assert cpus.get() == ["powersave", "powersave"]
    assert pending(bench).exists()


def test_a_device_that_does_not_come_back_runs_nothing(bench: Bench, cpus: Cpus) -> None:
    left_behind(bench, cpus)
    held = json.loads(pending(bench).read_text())
    held["commands"] = [["/nonexistent/tool"], *held["commands"][:1]]
    pending(bench).write_text(json.dumps(held))
    runtime = bench.script(same)
    assert bench.fails() == ("infra_error", "E-POWER-RESTORE")
    assert bench.fails() == ("infra_error", "E-POWER-RESTORE"), "not forgotten either"
    assert runtime.calls == 0
    assert cpus.get() == ["ondemand", "powersave"], "what can be put back is"
    cpus.set("ondemand")  # a person does the rest
    bench.run()
    assert not pending(bench).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"before": "x"}', '{"before": 1, "commands": 2}'])
def test_a_damaged_record_is_said_and_kept(bench: Bench, text: str) -> None:
    pending(bench).write_text(text)
    bench.script(same)
    assert bench.fails() == ("infra_error", "E-POWER-RESTORE")
    assert pending(bench).exists()


def test_nothing_pending_is_nothing_to_do(tmp_path: Path) -> None:
    power.recover(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def in_the_midst(worker: WorkerProcess, cpus: Cpus, folder: Path) -> None:
    """Return once a job that never ends runs in the mode, and has its files."""
    x = np.ones((4, 4), np.float32)
    job = worker.job(
        gemm(folder / "gemm.onnx"),
        {"x": x},
        wire.RuntimeSpec("onnxruntime"),
        repeat=10**8,
        power=cpus.mode(),
    )
    worker.send(op="run", id=99, job=wire.dump(job))
    end = time.monotonic() + 60
    while worker.read()["type"] != "progress":
        assert time.monotonic() < end, worker.stderr()
    assert cpus.get() == ["powersave", "powersave"]


def test_a_worker_killed_in_a_mode_and_the_session_after_it(tmp_path: Path, cpus: Cpus) -> None:
    """SIGKILL to a real worker process; its successor restores when its session starts."""
    with WorkerProcess(tmp_path / "root") as worker:
        in_the_midst(worker, cpus, tmp_path)
        worker.process.kill()
        worker.wait()
    assert cpus.get() == ["powersave", "powersave"]
    with WorkerProcess(tmp_path / "root", token=2) as after:
        assert after.ask("noop")["type"] == "done"
        assert cpus.get() == ["ondemand", "ondemand"]
    assert not (tmp_path / "root" / "power.json").exists()


def test_a_worker_whose_coordinator_is_gone_puts_the_mode_back(tmp_path: Path, cpus: Cpus) -> None:
    with WorkerProcess(tmp_path / "root") as worker:
        in_the_midst(worker, cpus, tmp_path)
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        assert worker.wait() == EXIT_COORDINATOR_GONE
    assert cpus.get() == ["ondemand", "ondemand"]
    assert not (tmp_path / "root" / "power.json").exists()


def test_a_worker_that_lost_its_lease_leaves_the_mode_to_its_successor(
    tmp_path: Path, cpus: Cpus
) -> None:
    with WorkerProcess(tmp_path / "root", "--heartbeat", "600") as worker:
        in_the_midst(worker, cpus, tmp_path)
        with WorkerProcess(tmp_path / "root", token=2) as after:
            assert after.ask("noop")["type"] == "done"
            assert cpus.get() == ["ondemand", "ondemand"]
            left_behind_by(tmp_path / "root", cpus, "successor")
            assert worker.process.stdin is not None
            worker.process.stdin.close()
            assert worker.wait() == EXIT_COORDINATOR_GONE
            assert cpus.get() == ["powersave", "powersave"]
