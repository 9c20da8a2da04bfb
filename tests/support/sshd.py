"""A real OpenSSH server on 127.0.0.1 for tests: own host key, own config, whatever user runs it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.transports.settings import SshSettings
from tests.support.clock import PATIENCE

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
MISSING = None if SSHD and shutil.which("ssh-keygen") else "no sshd here: install openssh-server"

# sshd takes the first value of a keyword.
_CONFIG = """\
{extra}
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxSessions 100
MaxStartups 100
"""


def keygen(path: Path, *options: str) -> None:
    """A new key pair ``path``, ``path.pub``: ed25519 without passphrase unless options differ."""
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path), *options]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@dataclass
class Sshd:
    """``folder`` holds host_key, client_key, authorized_keys and known_hosts."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def settings(self, **changes: object) -> SshSettings:
        """Settings that log in, unless ``changes`` spoil them."""
        plain: dict[str, object] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "key": str(self.folder / "client_key"),
            "known_hosts": str(self.folder / "known_hosts"),
            "config": False,
            "agent": False,
            "root": str(self.folder / "device root"),
            "connect_timeout": PATIENCE,
        }
        return SshSettings.model_validate(plain | changes)

    def sessions(self) -> list[int]:
        """The processes that serve connections: all descendants that are sshd themselves."""
        return [p for p in _descendants(self.process.pid) if "sshd" in _name(p)]

    def signal_sessions(self, number: signal.Signals) -> None:
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def trust(self) -> None:
        public = (self.folder / "host_key.pub").read_text().rsplit(" ", 1)[0]
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}\n")


def introduced(board: Sshd, gateway: Sshd, host: str = "127.0.0.1") -> None:
    """Let who logs in to ``board`` log in to ``gateway`` too, and know its host key."""
    public = (gateway.folder / "host_key.pub").read_text().rsplit(" ", 1)[0]
    with (board.folder / "known_hosts").open("a") as known:
        known.write(f"[{host}]:{gateway.port} {public}\n")
    with (gateway.folder / "authorized_keys").open("a") as keys:
        keys.write((board.folder / "client_key.pub").read_text())


@contextlib.contextmanager
def running(
    folder: Path,
    extra: str = "Subsystem sftp internal-sftp",
    *,
    port: int | None = None,
    before: Sequence[str] = (),
) -> Iterator[Sshd]:
    """An sshd, its key in ``folder/known_hosts``, that lets ``folder/client_key`` in.

    ``extra``: further lines of its configuration. ``before``: a command that takes sshd as its
    last arguments, such as one that enters another network.
    """
    assert SSHD is not None
    folder.mkdir(parents=True, exist_ok=True)
    keygen(folder / "host_key")
    keygen(folder / "client_key")
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
    config = folder / "sshd_config"
    config.write_text(_CONFIG.format(port=port, folder=folder, extra=extra))
    if os.geteuid() == 0:
        # Where sshd as root insists on its privilege separation folder.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    log = folder / "sshd.log"
    command = [*before, SSHD, "-D", "-f", str(config), "-E", str(log)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    server = Sshd(folder, port, process)
    try:
        _await_listening(process, log)
        server.trust()
        yield server
    finally:
        for pid in [*_descendants(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _await_listening(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if log.exists() and "Server listening on" in log.read_text():
            return
        time.sleep(0.02)
    raise RuntimeError(f"sshd did not come up: {log.read_text() if log.exists() else 'no log'}")


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""
