"""Scripted faults do what they say, once, and leave a real device otherwise. Local beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.errors import AssayError, DeadlineError, InfraError
from orchestrator.transports import FakeSettings, Fault, LocalSettings, Transport, open_transport
from orchestrator.transports.fake import GARBAGE
from orchestrator.transports.settings import FaultKind, FaultPoint
from tests.support.clock import PATIENCE


def fake(root: Path, *faults: Fault) -> Transport:
    return open_transport(FakeSettings(root=str(root), faults=list(faults)), device="pi-1")


def failure(call: Callable[[], object]) -> str:
    with pytest.raises(AssayError) as caught:
        call()
    assert "pi-1" in str(caught.value)
    return caught.value.id


def echo(t: Transport, timeout: float = PATIENCE) -> bytes:
    return t.run(["echo", "hello"], timeout=timeout).stdout


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(bytes(1000))
    return path


def test_after_and_times_count_calls(tmp_path: Path) -> None:
    with fake(tmp_path, Fault(kind="corrupt", on="run", after=2, times=2)) as t:
        spoilt = [echo(t) != b"hello\n" for _ in range(6)]
    assert spoilt == [False, False, True, True, False, False]
    with fake(tmp_path / "ever", Fault(kind="corrupt", on="run", times=None)) as t:
        assert all(echo(t) != b"hello\n" for _ in range(5))


def test_counting_goes_on_over_connections(tmp_path: Path) -> None:
    fault = Fault(kind="drop", on="run", after=1)
    with fake(tmp_path, fault) as t:
        assert echo(t) == b"hello\n"
        assert failure(lambda: echo(t)) == "E-LINK"
    with fake(tmp_path, fault) as t:
        assert echo(t) == b"hello\n"


def test_drop_is_for_good_and_takes_channels_along(tmp_path: Path, model: Path) -> None:
    with fake(tmp_path, Fault(kind="drop", on="push")) as t:
        channel = t.start(["sh", "-c", "echo $$; cat"])
        pid = int(channel.read_line(PATIENCE) or b"")
        assert failure(lambda: t.push(model, PurePosixPath("m"), timeout=PATIENCE)) == "E-LINK"
        assert failure(lambda: t.push(model, PurePosixPath("m"), timeout=PATIENCE)) == "E-LINK"
        assert failure(lambda: t.pull(PurePosixPath("m"), model, timeout=PATIENCE)) == "E-LINK"
        assert failure(lambda: t.ping(timeout=PATIENCE)) == "E-LINK"
        assert failure(lambda: t.start(["cat"])) == "E-LINK"
        assert failure(t.root) == "E-LINK"
        assert failure(lambda: channel.send(b"x")) == "E-LINK"
        assert failure(lambda: channel.read_line(PATIENCE)) == "E-LINK"
        assert channel.returncode() is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("on", ["run", "start", "push", "pull"])
def test_drop_everywhere(tmp_path: Path, model: Path, on: FaultPoint) -> None:
    with fake(tmp_path, Fault(kind="drop", on=on)) as t:
        calls: dict[str, Callable[[], object]] = {
            "run": lambda: echo(t),
            "start": lambda: t.start(["cat"]),
            "push": lambda: t.push(model, PurePosixPath("m"), timeout=PATIENCE),
            "pull": lambda: t.pull(PurePosixPath("m"), model, timeout=PATIENCE),
        }
        assert failure(calls[on]) == "E-LINK"


@pytest.mark.parametrize("kind", ["stall", "slow"])
def test_stall_and_slow(tmp_path: Path, kind: FaultKind) -> None:
    short = Fault(kind=kind, on="run", seconds=0.3)
    with fake(tmp_path, short, Fault(kind=kind, on="run", seconds=30, after=1)) as t:
        start = time.monotonic()
        assert echo(t) == b"hello\n"
        assert time.monotonic() - start >= 0.3
        start = time.monotonic()
        with pytest.raises(DeadlineError):
            echo(t, timeout=0.1)
        assert time.monotonic() - start >= 0.1


def test_stall_for_ever_ends_at_the_deadline(tmp_path: Path) -> None:
    faults = [Fault(kind="stall", on="run"), Fault(kind="stall", on="read")]
    with fake(tmp_path, *faults) as t:
        assert failure(lambda: echo(t, timeout=0.2)) == "E-DEADLINE"
        channel = t.start(["echo", "x"])
        assert failure(lambda: channel.read_line(0.2)) == "E-SILENCE"
        assert channel.read_line(PATIENCE) == b"x"


def test_corrupt_push_and_pull(tmp_path: Path, model: Path) -> None:
    faults = [Fault(kind="corrupt", on="push"), Fault(kind="corrupt", on="pull", after=1)]
    back = tmp_path / "back"
    with fake(tmp_path / "root", *faults) as t:
        want = model.read_bytes()
        for expected_damage in (1, 1, 0):
            t.push(model, PurePosixPath("m"), timeout=PATIENCE)
            t.pull(PurePosixPath("m"), back, timeout=PATIENCE)
            got = back.read_bytes()
            assert len(got) == len(want)
            assert sum(a != b for a, b in zip(got, want, strict=True)) == expected_damage
    assert model.read_bytes() == want


def test_disk_full(tmp_path: Path, model: Path) -> None:
    with fake(tmp_path / "root", Fault(kind="disk_full", on="push")) as t:
        with pytest.raises(InfraError) as caught:
            t.push(model, PurePosixPath("m"), timeout=PATIENCE)
        assert (caught.value.id, caught.value.retryable) == ("E-DISK-FULL", False)
        assert not (tmp_path / "root" / "m").exists()
        t.push(model, PurePosixPath("m"), timeout=PATIENCE)


def test_garbage_corruption_and_a_huge_line(tmp_path: Path) -> None:
    faults = [
        Fault(kind="garbage", on="run"),
        Fault(kind="garbage", on="read", after=1),
        Fault(kind="corrupt", on="read", after=2),
        Fault(kind="huge_line", on="read", after=4),
    ]
    with fake(tmp_path, *faults) as t:
        assert t.run(["echo", "x"], timeout=PATIENCE).stdout == GARBAGE
        channel = t.start(["sh", "-c", "for i in 1 2 3 4 5 6; do echo line$i; done; cat"])
        lines = [channel.read_line(PATIENCE) for _ in range(4)]
        assert lines[:2] == [b"line1", GARBAGE]
        assert lines[2] not in (None, b"line2")
        assert lines[3] == b"line3"
        for _ in range(2):
            assert failure(lambda: channel.read_line(PATIENCE)) == "E-WORKER-GARBAGE"


# --- local


def test_deadline_though_something_escaped_with_the_pipes(tmp_path: Path) -> None:
    """A grandchild in a session of its own keeps stdout open: the call must end all the same."""
    said = tmp_path / "pid"
    script = "setsid sh -c 'echo $$ > part; mv part pid; exec sleep 600' & sleep 600"
    with open_transport(LocalSettings(root=str(tmp_path)), device="pi-1") as t:
        for seconds in (0.7, 3.0, 12.0, 48.0):  # until it escapes in time
            assert failure(lambda s=seconds: t.run(["sh", "-c", script], timeout=s)) == "E-DEADLINE"  # type: ignore[misc]
            if said.exists():
                break
    os.kill(int(said.read_text()), 9)


def test_local_root_is_made_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with open_transport(LocalSettings(), device="pi-1") as t:
        assert list(tmp_path.iterdir()) == []
        assert t.root() == PurePosixPath(tmp_path / ".cache/assay/device/local")
        assert Path(t.root()).is_dir()


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below"):
        settings = LocalSettings(root=str(tmp_path / name))
        with open_transport(settings, device="pi-1") as t:
            assert failure(t.root) in ("E-TRANSFER", "E-REMOTE-MISSING")
