"""What a second run of the same matrix sends to a device that kept its cache.

Payload is what the store recorded of each attempt; the bytes on the wire are counted by a relay
between coordinator and sshd, which believes nobody.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.runs.snapshot import load_run
from orchestrator.store.database import Store
from orchestrator.transports.settings import SshSettings
from tests.benchmarks import farm
from tests.benchmarks.kit import SkippedError, Table
from tests.benchmarks.worker import QUICKSTART
from tests.support.sshd import Sshd

ROUNDS = 3
"""Rounds of: a run on an empty device, the same again, scp of the same files."""


def run() -> list[Table]:
    if shutil.which("scp") is None:
        raise SkippedError("no scp here: install openssh-client")
    with (
        tempfile.TemporaryDirectory(prefix="assay-bench-") as name,
        farm.server(Path(name) / "sshd") as ssh,
        _relay(ssh.port) as relay,
        Store.open(Path(name) / "store") as store,
    ):
        return _rounds(Path(name), ssh, relay, store)


def _rounds(folder: Path, ssh: Sshd, relay: Relay, store: Store) -> list[Table]:
    known = ssh.folder / "relay_hosts"
    key = " ".join((ssh.folder / "host_key.pub").read_text().split()[:2])
    known.write_text(f"[127.0.0.1]:{relay.port} {key}\n")
    arms = ("first run", "second run", "scp of the files")
    payload: dict[str, list[float]] = {arm: [] for arm in arms}
    wire: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(ROUNDS):
        place = folder / f"round-{turn}"
        place.mkdir()
        settings = ssh.settings(port=relay.port, known_hosts=str(known), root=str(place / "device"))
        path = _matrix(place, settings)
        for arm in arms[:2]:
            run_id = farm.submit(store, path)
            before = relay.upward
            with farm.executor("inprocess", place / "spool") as fan:
                farm.work(store, run_id, fan)
            results = [attempt.result or {} for attempt in store.attempts(run_id)]
            payload[arm].append(sum(result["bytes_pushed"] for result in results) / 1024)
            wire[arm].append((relay.upward - before) / 1024)
        before = relay.upward
        files = _files(store, run_id)
        _scp(files, settings, place / "copy")
        payload[arms[2]].append(sum(file.stat().st_size for file in files) / 1024)
        wire[arms[2]].append((relay.upward - before) / 1024)
    sent = Table("payload sent to the device", "KiB")
    upward = Table("bytes on the wire to the device, SSH and requests included", "KiB")
    for arm in arms:
        sent.add(arm, payload[arm])
        upward.add(arm, wire[arm])
    sent.note("the first run sends the worker too; aim for the second run: 0")
    return [sent, upward]


def _matrix(folder: Path, ssh: SshSettings) -> Path:
    """Both of the quickstart's nets on all its digits: 4 cells."""
    for size in ("8x8", "32x32"):
        data = np.load(QUICKSTART / f"digits_{size}.npz")
        np.savez(folder / f"d{size}.npz", x=data["x"], y=data["y"])
    models: list[dict[str, Any]] = [
        {
            "name": name,
            "task": {"type": "classification"},
            "inputs": [inputs],
            "files": [
                {
                    "name": file,
                    "path": str(QUICKSTART / "models" / f"{name}.{file}.onnx"),
                    "layout": "nchw",
                }
                for file in ("u8s8", "u8u8")
            ],
        }
        for name, inputs in (("digits_cnn", "d8x8"), ("digits_ds", "d32x32"))
    ]
    inputs = [
        {"name": name, "type": "npz", "path": f"{name}.npz", "array": "x", "labels": "y"}
        for name in ("d8x8", "d32x32")
    ]
    runtimes = [{"name": "ort", "runtime": "onnxruntime", "threads": 1}]
    return farm.matrix(folder, ssh, models=models, inputs=inputs, runtimes=runtimes)


def _files(store: Store, run_id: str) -> list[Path]:
    """The models and tensors of the run."""
    staging = load_run(store.frozen(run_id)).staging
    shas = {m.sha256 for m in staging.models.values()} | {
        t.sha256 for t in staging.tensors.values()
    }
    return [store.artefacts.path(sha) for sha in sorted(shas)]


def _scp(files: list[Path], ssh: SshSettings, target: Path) -> None:
    target.mkdir()
    options = ["-q", "-F", "none", "-P", str(ssh.port), "-i", str(ssh.key)]
    options += ["-o", f"UserKnownHostsFile={ssh.known_hosts}", "-o", "IdentitiesOnly=yes"]
    command = ["scp", *options, *map(str, files), f"{ssh.user}@{ssh.host}:{target}"]
    subprocess.run(command, check=True)


class Relay:
    """Passes connections on to ``to`` and counts the bytes of the way there."""

    def __init__(self, to: int) -> None:
        self.upward = 0
        self._to = to
        self._guard = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                for ends, counted in (((near, far), True), ((far, near), False)):
                    threading.Thread(target=self._pass, args=(*ends, counted), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):  # either side went away: so does the other
            while data := source.recv(1 << 16):
                if counted:
                    with self._guard:
                        self.upward += len(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _relay(to: int) -> Iterator[Relay]:
    relay = Relay(to)
    try:
        yield relay
    finally:
        relay.close()
