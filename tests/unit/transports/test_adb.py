"""What goes wrong behind a real adbd: killed, stopped, full, replaced."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.errors import AssayError, DeadlineError, InfraError
from orchestrator.transports import Transport, adb, open_transport
from orchestrator.transports.adb import list_devices
from tests.support import adbd
from tests.support.adbd import FINGERPRINT, Adbd
from tests.support.cli import until
from tests.support.clock import PATIENCE

pytestmark = pytest.mark.adbd


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is alive gets all the time it needs to end what was left on it."""
    monkeypatch.setattr(adb, "KILL_TIMEOUT", PATIENCE)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Adbd]:
    with adbd.running(tmp_path / "adbd") as running:
        yield running
        if running.process is not None:
            running.signal(signal.SIGCONT)


@pytest.fixture
def transport(device: Adbd) -> Iterator[Transport]:
    with open_transport(device.settings(), device="phone-1") as opened:
        opened.root()
        yield opened


def failure(call: Callable[[], object]) -> AssayError:
    with pytest.raises(AssayError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


def entering(device: Adbd, **changes: object) -> AssayError:
    def enter() -> None:
        with open_transport(device.settings(**changes), device="phone-1"):
            pass

    return failure(enter)


def test_listed_with_its_state(device: Adbd, transport: Transport) -> None:
    (found,) = list_devices(server_port=device.server_port)
    assert (found.serial, found.state, found.usb) == (f"127.0.0.1:{device.port}", "device", None)


def test_killed_daemon_ends_a_channel(device: Adbd, transport: Transport) -> None:
    channel = transport.start(["cat"])
    channel.send(b"x")
    assert channel.read_line(PATIENCE) == b"x"
    threading.Timer(0.5, device.stop).start()
    error = failure(lambda: channel.read_line(PATIENCE))  # at its deadline it would be E-SILENCE
    assert isinstance(error, InfraError)
    assert (error.id, error.retryable) == ("E-LINK", True)
    error = failure(lambda: channel.send(b"x"))
    assert error.id == "E-LINK"
    assert channel.returncode() is None  # adb 29 itself says 0 here
    channel.close(2 * PATIENCE)  # waits for nothing: pytest would end the test before
    assert shells() == []


def test_killed_daemon_ends_every_call(device: Adbd, transport: Transport, tmp_path: Path) -> None:
    device.stop()
    for call in calls(transport, tmp_path, PATIENCE).values():
        assert failure(call).id == "E-LINK"


def test_a_daemon_that_was_restarted_is_reached_anew(device: Adbd, transport: Transport) -> None:
    device.stop()
    assert failure(lambda: transport.ping(timeout=PATIENCE)).id == "E-LINK"
    device.start()
    assert failure(lambda: transport.ping(timeout=PATIENCE)).id == "E-LINK"  # it stays down
    with open_transport(device.settings(), device="phone-1") as again:
        assert again.run(["echo", "back"], timeout=PATIENCE).stdout == b"back\n"


def calls(t: Transport, tmp_path: Path, timeout: float) -> dict[str, Callable[[], object]]:
    small = tmp_path / "small"
    small.write_bytes(b"x")
    return {
        "run": lambda: t.run(["cat"], timeout=timeout, stdin=b"x" * (4 << 20)),
        "push": lambda: t.push(small, PurePosixPath("small"), timeout=timeout),
        "pull": lambda: t.pull(PurePosixPath("there"), tmp_path / "back", timeout=timeout),
        "ping": lambda: t.ping(timeout=timeout),
    }


@pytest.mark.parametrize("name", ["run", "push", "pull", "ping"])
def test_a_silent_device_ends_at_the_deadline(
    device: Adbd, transport: Transport, tmp_path: Path, name: str
) -> None:
    """As with a pulled cable: the server still calls it a device and says nothing."""
    call = calls(transport, tmp_path, 0.5)[name]
    device.signal(signal.SIGSTOP)
    error = failure(call)
    assert (error.id, isinstance(error, DeadlineError)) == ("E-DEADLINE", True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adbd", "small"]


def test_a_silent_device_is_silence_to_a_channel(device: Adbd, transport: Transport) -> None:
    channel = transport.start(["cat"])
    device.signal(signal.SIGSTOP)
    error = failure(lambda: channel.read_line(0.5))
    assert error.id == "E-SILENCE"
    assert len(shells()) == 1
    channel.close(0.2)
    assert shells() == []
    # Given up: no second wait, at whose end it would be E-DEADLINE.
    assert failure(lambda: transport.ping(timeout=PATIENCE)).id == "E-LINK"


def shells() -> list[int]:
    """The clients of this process that wait for a command on a device."""
    ours = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for children in ours for pid in children.read_text().split()]
    return [pid for pid in pids if b"\0shell\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_leaving_kills_what_still_runs(device: Adbd, tmp_path: Path, patient: None) -> None:
    with open_transport(device.settings(), device="phone-1") as opened:
        channel = opened.start(["sh", "-c", "echo $$; exec sleep 600"])
        pid = int(channel.read_line(PATIENCE) or b"")
        assert alive(pid)
    until(lambda: not alive(pid), "it is gone", PATIENCE)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_full_storage(tmp_path: Path) -> None:
    folder = tmp_path / "adbd"
    root = folder / "device root"
    root.mkdir(parents=True)
    namespace = ["unshare", "-m" if os.geteuid() == 0 else "-Urm"]
    mount = 'mount -t tmpfs -o size=2m none "$1" && shift && exec "$@"'
    big = tmp_path / "big"
    big.write_bytes(secrets.token_bytes(4 << 20))
    with (
        adbd.running(folder, [*namespace, "sh", "-c", mount, "sh", str(root)]) as device,
        open_transport(device.settings(), device="phone-1") as opened,
    ):
        error = failure(lambda: opened.push(big, PurePosixPath("a/big"), timeout=PATIENCE))
        assert isinstance(error, InfraError)
        assert (error.id, error.retryable) == ("E-DISK-FULL", False)
        assert opened.run(["ls", "-A", f"{opened.root()}/a"], timeout=PATIENCE).stdout == b""
        small = tmp_path / "small"
        small.write_bytes(b"x")
        opened.push(small, PurePosixPath("a/small"), timeout=PATIENCE)


def test_folders_that_cannot_be_made(device: Adbd, transport: Transport, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"x")
    transport.push(small, PurePosixPath("file"), timeout=PATIENCE)
    error = failure(lambda: transport.push(small, PurePosixPath("file/below"), timeout=PATIENCE))
    assert error.id == "E-REMOTE-MISSING"
    assert entering_root(device, "/proc/nowhere").id == "E-REMOTE-MISSING"


def entering_root(device: Adbd, root: str) -> AssayError:
    with open_transport(device.settings(root=root), device="phone-1") as opened:
        return failure(opened.root)


def test_the_fingerprint_is_compared(device: Adbd) -> None:
    with open_transport(device.settings(fingerprint=FINGERPRINT), device="phone-1") as opened:
        assert opened.ping(timeout=PATIENCE) > 0
    error = entering(device, fingerprint="google/panther/panther:14/X/1:user/release-keys")
    assert error.id == "E-ADB-IDENTITY"
    assert FINGERPRINT in str(error)


def test_the_users_shell_variables_lead_the_client_nowhere(
    device: Adbd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:127.0.0.1:1")
    monkeypatch.setenv("ANDROID_SERIAL", "another")
    monkeypatch.setenv("ADB_TRACE", "all")
    with open_transport(device.settings(), device="phone-1") as opened:
        done = opened.run(["sh", "-c", "echo x; echo y >&2"], timeout=PATIENCE)
    assert (done.stdout, done.stderr) == (b"x\n", b"y\n")
