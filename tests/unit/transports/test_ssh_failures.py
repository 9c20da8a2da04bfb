"""What goes wrong after the login: dead and stopped servers, full disks, odd shells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.errors import AssayError, DeadlineError, InfraError
from orchestrator.transports import (
    FakeSettings,
    LocalSettings,
    Transport,
    TransportSettings,
    open_transport,
    ssh,
)
from tests.support import sshd
from tests.support.cli import until
from tests.support.clock import PATIENCE, Clock, when
from tests.support.sshd import Sshd, running

SOON = 1.0
"""Seconds for what a server that stands still has to miss, however long it is given."""


def failure(call: Callable[[], object]) -> AssayError:
    with pytest.raises(AssayError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is alive gets all the time it needs to end what missed its deadline."""
    monkeypatch.setattr(ssh, "KILL_TIMEOUT", PATIENCE)
    monkeypatch.setattr(ssh, "_GRACE", PATIENCE)


@pytest.fixture
def transport(server: Sshd) -> Iterator[Transport]:
    with open_transport(server.settings(), device="pi-1") as opened:
        opened.root()
        yield opened
        server.signal_sessions(signal.SIGCONT)


def calls(t: Transport, tmp_path: Path, timeout: float) -> dict[str, Callable[[], object]]:
    big, small = tmp_path / "big", tmp_path / "small"
    with big.open("wb") as file:
        file.truncate(32 << 20)
    small.write_bytes(b"x")
    return {
        "run": lambda: t.run(["cat"], timeout=timeout, stdin=b"x" * (8 << 20)),
        "push small": lambda: t.push(small, PurePosixPath("small"), timeout=timeout),
        "push big": lambda: t.push(big, PurePosixPath("big"), timeout=timeout),
        "pull": lambda: t.pull(PurePosixPath("there"), tmp_path / "back", timeout=timeout),
        "ping": lambda: t.ping(timeout=timeout),
    }


def test_killed_server_ends_a_channel(server: Sshd, transport: Transport) -> None:
    channel = transport.start(["cat"])
    channel.send(b"x")
    assert channel.read_line(PATIENCE) == b"x"
    threading.Timer(0.5, server.signal_sessions, [signal.SIGKILL]).start()
    error = failure(lambda: channel.read_line(PATIENCE))  # at its deadline it would be E-SILENCE
    assert error.id == "E-LINK"
    assert isinstance(error, InfraError)
    assert error.retryable
    assert failure(lambda: channel.send(b"x")).id == "E-LINK"
    assert channel.returncode() is None
    channel.close(2 * PATIENCE)  # waits for nothing: pytest would end the test before


def test_killed_server_ends_every_call(server: Sshd, transport: Transport, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    when(begun.exists, lambda: server.signal_sessions(signal.SIGKILL))
    wait = ["sh", "-c", 'touch "$1"; exec sleep 600', "sh", str(begun)]
    assert failure(lambda: transport.run(wait, timeout=PATIENCE)).id == "E-LINK"
    for name, call in calls(transport, tmp_path, PATIENCE).items():
        assert (name, failure(call).id) == (name, "E-LINK")
    assert failure(lambda: transport.start(["cat"])).id == "E-LINK"


def test_a_new_connection_works_after_a_broken_one(server: Sshd, transport: Transport) -> None:
    server.signal_sessions(signal.SIGKILL)
    failure(lambda: transport.ping(timeout=PATIENCE))
    with open_transport(server.settings(), device="pi-1") as again:
        assert again.ping(timeout=PATIENCE) > 0


def test_killed_server_in_mid_push_leaves_no_final_file(server: Sshd, tmp_path: Path) -> None:
    with open_transport(server.settings(), device="pi-1") as t:
        root = Path(t.root())
        push = calls(t, tmp_path, PATIENCE)["push big"]
        server.signal_sessions(signal.SIGSTOP)
        threading.Timer(1.0, server.signal_sessions, [signal.SIGKILL]).start()
        assert failure(push).id == "E-LINK"
    assert not (root / "big").exists()


@pytest.mark.parametrize("name", ["run", "push small", "push big", "pull", "ping"])
def test_stopped_server_meets_the_deadline(
    server: Sshd, transport: Transport, tmp_path: Path, name: str
) -> None:
    server.signal_sessions(signal.SIGSTOP)
    start = time.monotonic()
    error = failure(calls(transport, tmp_path, SOON)[name])
    assert isinstance(error, DeadlineError)
    assert error.id == "E-DEADLINE"
    assert time.monotonic() - start >= 0.9 * SOON


def test_stopped_server_is_silent(server: Sshd, transport: Transport) -> None:
    channel = transport.start(["sh", "-c", "while :; do echo x; sleep 0.1; done"])
    assert channel.read_line(PATIENCE) == b"x"
    server.signal_sessions(signal.SIGSTOP)

    def read() -> None:
        while True:
            channel.read_line(SOON)

    assert failure(read).id == "E-SILENCE"
    channel.close(0.5)


def test_stopped_server_takes_no_lines(server: Sshd) -> None:
    with open_transport(server.settings(keepalive=0.25), device="pi-1") as t:
        channel = t.start(["cat"])
        server.signal_sessions(signal.SIGSTOP)

        def send() -> None:
            for _ in range(10_000):
                channel.send(b"x" * 10_000)

        assert failure(send).id == "E-LINK"


def test_start_on_a_stopped_server(server: Sshd, transport: Transport) -> None:
    server.signal_sessions(signal.SIGSTOP)
    soon = transport.settings.model_copy(update={"connect_timeout": SOON})
    transport.settings = soon  # type: ignore[misc]  # what logs in takes its time, this does not
    assert failure(lambda: transport.start(["cat"])).id == "E-DEADLINE"


def test_a_slow_command_does_not_cost_the_link(
    transport: Transport, clock: Clock, patient: None, tmp_path: Path
) -> None:
    channel = transport.start(["cat"])
    begun = tmp_path / "begun"
    clock.expire(begun.exists)
    slow = ["sh", "-c", 'touch "$1"; exec sleep 600', "sh", str(begun)]
    assert failure(lambda: transport.run(slow, timeout=PATIENCE)).id == "E-DEADLINE"
    channel.send(b"still here")
    assert channel.read_line(PATIENCE) == b"still here"


@pytest.mark.parametrize("sftp", ["Subsystem sftp internal-sftp", ""])
def test_missed_push_removes_its_part(tmp_path: Path, sftp: str, patient: None) -> None:
    """The part is far larger than what goes over in the time that a push is given."""
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(4 << 30)
    with (
        running(tmp_path / "sshd", sftp) as server,
        open_transport(server.settings(), device="pi-1") as t,
    ):
        root = Path(t.root())
        error = failure(lambda: t.push(huge, PurePosixPath("huge"), timeout=SOON))
        assert error.id == "E-DEADLINE"
        until(lambda: list(root.iterdir()) == [], "the part is gone", PATIENCE)


def test_interrupt_kills_what_was_running(server: Sshd, tmp_path: Path, patient: None) -> None:
    """Ctrl-C in the thread that waits: the process ends on the device, the link lives on."""
    said, main = tmp_path / "pid", threading.get_ident()
    script = 'echo $$ > "$1.part"; mv "$1.part" "$1"; exec sleep 600'
    with open_transport(server.settings(), device="pi-1") as t:
        when(said.exists, lambda: signal.pthread_kill(main, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            t.run(["sh", "-c", script, "sh", str(said)], timeout=PATIENCE)
        process = Path("/proc") / said.read_text().strip()
        until(lambda: not process.exists(), "the process is gone", PATIENCE)
        assert t.ping(timeout=PATIENCE) > 0


def test_no_more_sessions(tmp_path: Path) -> None:
    with (
        running(tmp_path / "sshd", "MaxSessions 2") as server,
        open_transport(server.settings(), device="pi-1") as t,
    ):
        channels = [t.start(["cat"]) for _ in range(2)]
        error = failure(lambda: t.ping(timeout=PATIENCE))
        assert error.id == "E-SSH-SESSIONS"
        channels[0].close()
        assert t.ping(timeout=PATIENCE) > 0


def test_user_without_a_shell(tmp_path: Path) -> None:
    with (
        running(tmp_path / "sshd", "ForceCommand echo This account is not available") as server,
        open_transport(server.settings(), device="pi-1") as t,
    ):
        error = failure(lambda: t.ping(timeout=PATIENCE))
        assert error.id == "E-REMOTE-SHELL"
        assert "not available" in str(error)


def test_login_script_that_never_ends(tmp_path: Path) -> None:
    with (
        running(tmp_path / "sshd", "ForceCommand yes") as server,
        open_transport(server.settings(), device="pi-1") as t,
    ):
        error = failure(lambda: t.ping(timeout=PATIENCE))
        assert error.id == "E-REMOTE-SHELL"


def test_noisy_login_script_is_cut_off(tmp_path: Path) -> None:
    force = """ForceCommand printf 'Welcome!\\nno newline'; sh -c "$SSH_ORIGINAL_COMMAND" """
    small = tmp_path / "small"
    small.write_bytes(b"small")
    with (
        running(tmp_path / "sshd", force) as server,
        open_transport(server.settings(), device="pi-1") as t,
    ):
        assert t.run(["echo", "x"], timeout=PATIENCE).stdout == b"x\n"
        # SFTP cannot work with that; the files must arrive all the same.
        t.push(small, PurePosixPath("a/b"), timeout=PATIENCE)
        t.pull(PurePosixPath("a/b"), tmp_path / "back", timeout=PATIENCE)
        assert (tmp_path / "back").read_bytes() == b"small"


def test_half_open_link(tmp_path: Path) -> None:
    """The network goes away without a word: keepalives nobody acknowledges end the link."""
    isolated = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    try:
        subprocess.run([*isolated, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespace can be made here")
    if sshd.MISSING:
        pytest.skip(sshd.MISSING)
    script = f"""
        import subprocess, time
        from pathlib import Path
        from orchestrator.errors import AssayError
        from orchestrator.transports import open_transport
        from tests.support.sshd import running
        with running(Path({str(tmp_path)!r})) as server:
            with open_transport(server.settings(keepalive=1.0), device="x") as t:
                channel = t.start(["cat"])
                subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
                try:
                    channel.read_line({PATIENCE})
                except AssayError as error:
                    print(error.id)
    """
    command = [*isolated, sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("E-LINK\n", "")


# --- where a device says no


@pytest.fixture(params=["ssh", "ssh-no-sftp", "local", "fake"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TransportSettings]:
    if request.param == "local":
        yield LocalSettings(root=str(tmp_path / "local"))
    elif request.param == "fake":
        yield FakeSettings(root=str(tmp_path / "fake"))
    elif sshd.MISSING:
        pytest.skip(sshd.MISSING)
    else:
        sftp = "Subsystem sftp internal-sftp" if request.param == "ssh" else ""
        with running(tmp_path / "sshd", sftp) as server:
            yield server.settings()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk(settings: TransportSettings, tiny_disk: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(bytes(1 << 20))
    target = PurePosixPath(tiny_disk / "sub" / "model")
    with open_transport(settings, device="pi-1") as t:
        error = failure(lambda: t.push(model, target, timeout=PATIENCE))
        assert error.id == "E-DISK-FULL"
        assert "pi-1" in str(error)
        assert list((tiny_disk / "sub").iterdir()) == []


def test_full_disk_here(settings: TransportSettings, tiny_disk: Path) -> None:
    with open_transport(settings, device="pi-1") as t:
        big = t.root() / "big"
        t.run(["sh", "-c", 'head -c 1000000 /dev/zero > "$1"', "sh", str(big)], timeout=PATIENCE)
        error = failure(lambda: t.pull(big, tiny_disk / "back", timeout=PATIENCE))
        assert error.id == "E-LOCAL-FILE"
        assert list(tiny_disk.iterdir()) == []


def test_permission(settings: TransportSettings, tmp_path: Path) -> None:
    # Nobody may make a folder there, root included.
    forbidden = PurePosixPath("/sys/assay/model")
    model = tmp_path / "model"
    model.write_bytes(b"x")
    with open_transport(settings, device="pi-1") as t:
        error = failure(lambda: t.push(model, forbidden, timeout=PATIENCE))
        assert error.id == "E-REMOTE-PERMISSION"
    spoilt = settings.model_copy(update={"root": "/sys/assay"})
    with open_transport(spoilt, device="pi-1") as t:
        error = failure(t.root)
        assert error.id == "E-REMOTE-PERMISSION"


# --- manners


def test_nothing_spills_and_nothing_lingers(server: Sshd) -> None:
    """Killed and stopped servers: no log of paramiko, no thread that keeps Python alive."""
    pid = server.process.pid
    script = f"""
        import os, signal, threading
        from orchestrator.errors import AssayError
        from orchestrator.transports import SshSettings, open_transport
        from pathlib import Path
        settings = SshSettings.model_validate_json({server.settings().model_dump_json()!r})
        sessions = Path("/proc/{pid}/task/{pid}/children")
        kill = lambda number: [os.kill(int(p), number) for p in sessions.read_text().split()]
        first = open_transport(settings, device="x").__enter__()
        channel = first.start(["cat"])
        kill(signal.SIGKILL)
        try:
            channel.read_line({PATIENCE})
        except AssayError as error:
            print(error.id)
        second = open_transport(settings, device="x").__enter__()
        channel = second.start(["cat"])
        kill(signal.SIGSTOP)
        try:
            second.run(["true"], timeout=0.5)
        except AssayError as error:
            print(error.id)
        print([t.name for t in threading.enumerate() if not t.daemon])
    """
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    server.signal_sessions(signal.SIGCONT)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["E-LINK", "E-DEADLINE", "['MainThread']"]


def test_reading_settings_does_not_import_paramiko() -> None:
    script = (
        "import sys, orchestrator.transports as t; t.SshSettings(host='x'); "
        "import orchestrator.transports.contract; "
        "print([m for m in ('paramiko', 'numpy', 'ray', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_no_descriptors_or_threads_leak(server: Sshd) -> None:
    def use() -> None:
        with open_transport(server.settings(), device="pi-1") as t:
            t.ping(timeout=PATIENCE)
            t.start(["cat"])
            t.push(Path(sys.executable).resolve(), PurePosixPath("python"), timeout=PATIENCE)

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    use()
    files, threads = held()
    for _ in range(5):
        use()

    def as_before() -> bool:
        now = held()
        return now[0] <= files + 1 and now[1] <= threads + 1

    until(as_before, "descriptors and threads are given back", 30)


def test_leaving_ends_what_still_runs(server: Sshd, tmp_path: Path) -> None:
    for settings in (server.settings(), LocalSettings(root=str(tmp_path / "local"))):
        with open_transport(settings, device="pi-1") as t:
            channel = t.start(
                ["sh", "-c", "echo $$; trap '' HUP TERM; while :; do sleep 0.1; done"]
            )
            process = Path(f"/proc/{int(channel.read_line(PATIENCE) or b'')}")
            assert process.exists()
        until(lambda process=process: not process.exists(), "it is gone", PATIENCE)  # type: ignore[misc]
