"""A device's session over a real worker on this machine."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.devices import session as module
from orchestrator.devices.bundle import BOOTSTRAP, worker_bundle
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.devices.worker import Worker
from orchestrator.errors import DeadlineError, InfraError, ModelError
from orchestrator.transports import FakeSettings, Fault, LocalSettings, open_transport
from tests.support.cli import until
from tests.support.clock import PATIENCE, Clock, when
from tests.support.line import workers

PATIENT, SHORT = Limits(PATIENCE, PATIENCE), Limits(PATIENCE, 2)
"""SHORT is for what stays silent until it is asked why."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that answers may take its time for it."""
    monkeypatch.setattr(module, "LINK_S", PATIENCE)
    monkeypatch.setattr(module, "START_S", PATIENCE)


def started(opened: DeviceSession, clock: Clock) -> Worker:
    """However long that takes, which a short silence would count too."""
    with clock.stopped():
        return opened.worker(sys.executable)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "device"


def session(root: Path, owner: str = "o", token: int = 1) -> DeviceSession:
    transport = open_transport(LocalSettings(root=str(root)), device="d")
    return DeviceSession(transport, device="d", owner=owner, token=token, limits=PATIENT)


@pytest.fixture
def opened(root: Path) -> Iterator[DeviceSession]:
    with session(root) as made:
        yield made


def test_one_warm_worker_per_interpreter(opened: DeviceSession, root: Path) -> None:
    first = opened.worker(sys.executable)
    assert opened.worker(sys.executable) is first
    assert first.ping(PATIENCE) < PATIENCE
    assert len(workers(root)) == 1
    other = root.parent / "python"
    other.symlink_to(sys.executable)
    assert opened.worker(str(other)) is not first
    assert len(workers(root)) == 2


def test_a_process_serves_one_runtime(opened: DeviceSession, root: Path) -> None:
    """What one leaves behind in its process must not change what the next one computes."""
    first = opened.worker(sys.executable, runtime="litert")
    assert opened.worker(sys.executable, runtime="litert") is first
    assert opened.worker(sys.executable) is first
    second = opened.worker(sys.executable, runtime="onnxruntime")
    assert second is not first
    assert opened.worker(sys.executable, runtime="onnxruntime") is second
    assert second.ping(PATIENCE) < PATIENCE
    until(lambda: len(workers(root)) == 1, "the first one has ended")


def test_the_bundle_is_pushed_once(root: Path) -> None:
    with session(root) as first:
        first.worker(sys.executable)
        assert first.bytes_pushed == len(worker_bundle().data)
    with session(root, token=2) as second:
        second.worker(sys.executable)
        assert second.bytes_pushed == 0


def test_a_bundle_that_was_spoilt_on_the_device_is_pushed_again(root: Path) -> None:
    with session(root) as first:
        first.worker(sys.executable)
    (path,) = (root / "worker").glob("*.pyz")
    path.write_bytes(b"spoilt")
    with session(root, token=2) as second:
        second.worker(sys.executable)
        assert second.bytes_pushed == len(worker_bundle().data)
    assert path.read_bytes() == worker_bundle().data


def test_a_dropped_worker_is_gone_and_the_next_one_is_new(
    opened: DeviceSession, root: Path
) -> None:
    first = opened.worker(sys.executable)
    opened.drop(sys.executable)
    assert workers(root) == []
    assert opened.worker(sys.executable) is not first
    opened.drop("never started")


def test_leaving_ends_every_worker(root: Path) -> None:
    with session(root) as opened:
        opened.worker(sys.executable)
        assert len(workers(root)) == 1
    assert workers(root) == []


def test_the_devices_cache_limit_reaches_its_worker(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 2000)
    blobs = {sha256(b"x" * 2000): tmp_path / "file"}
    limited = DeviceSession(
        open_transport(LocalSettings(root=str(root)), device="d"),
        device="d",
        owner="o",
        token=1,
        limits=PATIENT,
        cache_limit=1000,
    )
    with limited as opened, pytest.raises(InfraError, match="limit is 1000") as caught:
        opened.ensure(opened.worker(sys.executable), blobs)
    assert caught.value.id == "E-CACHE-LIMIT"
    assert "cache_limit" in str(caught.value)
    with session(root, token=2) as opened:
        opened.ensure(opened.worker(sys.executable), blobs)


def test_only_what_lacks_is_sent(opened: DeviceSession, tmp_path: Path) -> None:
    worker = opened.worker(sys.executable)
    before = opened.bytes_pushed
    files = {}
    for name, content in (("a", b"first"), ("b", b"second one")):
        (tmp_path / name).write_bytes(content)
        files[sha256(content)] = tmp_path / name
    opened.ensure(worker, files)
    assert opened.bytes_pushed - before == len(b"first") + len(b"second one")
    opened.ensure(worker, files)
    assert opened.bytes_pushed - before == len(b"first") + len(b"second one")


def test_a_blob_of_another_content_is_not_adopted(opened: DeviceSession, tmp_path: Path) -> None:
    worker = opened.worker(sys.executable)
    (tmp_path / "a").write_bytes(b"something else")
    with pytest.raises(InfraError, match="E-CACHE-HASH"):
        opened.ensure(worker, {sha256(b"first"): tmp_path / "a"})
    reply = worker.ask("have", sha256=[sha256(b"first")], timeout=PATIENCE)
    assert reply["present"] == []


def test_a_second_farm_is_refused_while_the_first_is_alive(
    opened: DeviceSession, root: Path
) -> None:
    opened.worker(sys.executable)
    with session(root, owner="another farm") as other:
        worker = other.worker(sys.executable)  # it says hello before it asks for the lease
        with pytest.raises(InfraError) as held:
            worker.ask("noop", timeout=PATIENCE)
    assert (held.value.id, held.value.retryable) == ("E-LEASE-HELD", True)
    assert opened.worker(sys.executable).ping(PATIENCE) < PATIENCE


def test_an_idle_worker_ends_although_its_stderr_broke_first(root: Path) -> None:
    """As when the coordinator is killed: all three pipes break at once."""
    bundle = worker_bundle()
    path = root / bundle.name
    root.mkdir()
    path.write_bytes(bundle.data)
    argv = [sys.executable, "-c", BOOTSTRAP, str(path), bundle.sha256]
    argv += ["session", "--root", str(root), "--owner", "o", "--token", "1"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"hello" in process.stdout.readline()
        process.stdout.readline()  # a heartbeat: it is at rest
        process.stderr.close()
        process.stdout.close()
        process.stdin.close()
        process.wait(PATIENCE)
    finally:
        if process.poll() is None:
            os.kill(process.pid, 9)
            process.wait()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(("seconds", "blamed"), [(4.0, "E-LINK"), (None, "E-SILENCE")])
def test_a_silence_that_ends_was_the_links(
    root: Path, seconds: float | None, blamed: str, clock: Clock
) -> None:
    with session(root) as first:
        first.worker(sys.executable)  # its bundle is there: the next worker's first line is hello
    times = None if seconds is None else 1
    stall = Fault(kind="stall", on="read", after=1, times=times, seconds=seconds)
    transport = open_transport(FakeSettings(root=str(root), faults=[stall]), device="d")
    with DeviceSession(transport, device="d", owner="o", token=2, limits=SHORT) as opened:
        worker = started(opened, clock)
        with pytest.raises(DeadlineError) as silence:
            worker.ask("noop", timeout=PATIENCE)
        assert silence.value.id == "E-SILENCE"
        assert opened.blamed(silence.value).id == blamed


def test_a_worker_that_stands_still_is_not_the_links_fault(root: Path, clock: Clock) -> None:
    transport = open_transport(LocalSettings(root=str(root)), device="d")
    with DeviceSession(transport, device="d", owner="o", token=1, limits=SHORT) as opened:
        worker = started(opened, clock)
        (pid,) = workers(root)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DeadlineError) as silence:
            worker.ask("noop", timeout=PATIENCE)
        assert opened.blamed(silence.value) is silence.value


def test_a_silence_behind_a_silent_link_is_the_links(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINK_S", 0.5)
    stall = Fault(kind="stall", on="run", times=None)
    transport = open_transport(FakeSettings(root=str(root), faults=[stall]), device="d")
    with DeviceSession(transport, device="d", owner="o", token=1, limits=SHORT) as opened:
        late = DeadlineError("E-CELL-TIMEOUT", "not done")
        assert opened.blamed(late).id == "E-LINK"
        assert opened.blamed(ModelError("E-MODEL-RUN", "no")).id == "E-MODEL-RUN"


def test_a_short_silence_is_not_a_worker_that_only_works(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """With a deadline below the usual heartbeat, a healthy worker would look like a broken link.

    So it is told to beat several times in so long, and does, whatever else it works on.
    """
    transport = open_transport(LocalSettings(root=str(root)), device="d")
    with DeviceSession(
        transport, device="d", owner="o", token=1, limits=Limits(PATIENCE, 1)
    ) as opened:
        worker = started(opened, clock)
        (pid,) = workers(root)
        told = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert float(told[told.index("--heartbeat") + 1]) <= 1 / 4
        beats: list[bytes | None] = []
        read = worker._channel.read_line

        def line(timeout: float) -> bytes | None:
            said = read(timeout)
            beats.extend([said] if b"heartbeat" in (said or b"") else [])
            return said

        monkeypatch.setattr(worker._channel, "read_line", line)
        done = tmp_path / "done"
        when(lambda: len(beats) >= 3, done.touch)
        wait = ["sh", "-c", f"until [ -e {done} ]; do sleep 0.05; done"]
        busy = {"parser": "uname", "command": wait, "timeout_s": PATIENCE}
        with clock.stopped():  # a busy machine is no silence
            assert worker.ask("sensors", sources=[busy], timeout=PATIENCE)["type"] == "sensors"
