"""A real adbd on 127.0.0.1 and an adb server of the tests' own, both ended in the end."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.virtual_farm import adbd as package
from infra.virtual_farm.config import FarmError, Paths
from infra.virtual_farm.farm import farm_lock
from orchestrator.transports.settings import AdbSettings
from tests.support.clock import PATIENCE

FINGERPRINT = "assay/adbd/x86_64:14/TEST/1:userdebug/test-keys"

# What adbd's commands find first on their PATH: the two Android programs that the host lacks.
_SHIMS = {
    "getprop": f"""#!/bin/sh
case "$1" in
ro.build.fingerprint) echo "{FINGERPRINT}";;
ro.product.model) echo "adbd on this host";;
"") echo "[ro.build.fingerprint]: [{FINGERPRINT}]";;
*) echo;;
esac
""",
    "dumpsys": """#!/bin/sh
echo "Can't find service: $1"
""",
}


@functools.cache
def trouble() -> str | None:
    """Why no real adbd can run here, None where one can; it is fetched if need be."""
    if shutil.which("adb") is None:
        return "no adb here: install adb"
    try:
        _folder()
    except FarmError as error:
        return f"no adbd: {error}"
    return None


@functools.cache
def _folder() -> Path:
    paths = Paths.from_environment()
    there = package.adbd_path(paths)
    if there.is_dir():
        return there
    with farm_lock(paths):
        return package.ensure_adbd(paths)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), 5):
            return True
    except OSError:
        return False


def await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if listens("127.0.0.1", port):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on {port}: {log.read_text(errors='replace')}")


@contextlib.contextmanager
def server(folder: Path) -> Iterator[int]:
    """An adb server with a key of its own; its port. No emulator is looked for."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "server.log"
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    environment["ADB_LOCAL_TRANSPORT_MAX_PORT"] = "5554"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["adb", "-P", str(port), "nodaemon", "server"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        try:
            await_port(port, process, log)
            yield port
        finally:
            process.kill()


@dataclass
class Adbd:
    """``prefix`` goes before adbd's command line (unshare, say)."""

    folder: Path
    server_port: int
    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def settings(self, **changes: object) -> AdbSettings:
        """Settings that reach it, unless ``changes`` spoil them."""
        plain: dict[str, object] = {
            "serial": f"127.0.0.1:{self.port}",
            "server_port": self.server_port,
            "root": str(self.folder / "device root"),
        }
        return AdbSettings.model_validate(plain | changes)

    def start(self) -> None:
        shims, log = self.folder / "shims", self.folder / "adbd.log"
        shims.mkdir(parents=True, exist_ok=True)
        for name, text in _SHIMS.items():
            (shims / name).write_text(text)
            (shims / name).chmod(0o755)
        self.port = self.port or free_port()
        environment = {
            "PATH": f"{shims}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "ADBD_PORT": str(self.port),
            **self.environment,
        }
        with log.open("wb") as output:
            # Signals that a runner ignores (nohup, a background job) would reach every command.
            self.process = subprocess.Popen(
                [*self.prefix, "env", "--default-signal", *package.command(_folder())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )
        await_port(self.port, self.process, log)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def running(folder: Path, prefix: Sequence[str] = ()) -> Iterator[Adbd]:
    """A real adbd and an adb server for it alone."""
    folder.mkdir(parents=True, exist_ok=True)
    with server(folder) as port:
        device = Adbd(folder, port, prefix)
        device.start()
        try:
            yield device
        finally:
            device.stop()
