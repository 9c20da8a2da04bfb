"""What every transport costs: small calls, and files against scp and ``adb push``.

All on loopback, so that what is compared is the software: local processes, a real sshd, a real
adbd. The emulated phone is measured too where it is up; its figures are an emulator's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from orchestrator.transports import (
    AdbSettings,
    LocalSettings,
    SshSettings,
    Transport,
    TransportSettings,
    open_transport,
)
from tests.benchmarks.kit import Call, SkippedError, Table, interleave, scaled
from tests.support import adbd, sshd

TURNS = 30
FILE_TURNS = 8
SIZE = 16 << 20
CALL_S = 60.0
PHONE = "127.77.0.21:5555"


def run() -> list[Table]:
    if sshd.MISSING is not None:
        raise SkippedError(sshd.MISSING)
    if (reason := adbd.trouble()) is not None:
        raise SkippedError(reason)
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        with (
            sshd.running(folder / "sshd") as ssh,
            adbd.running(folder / "adbd") as phone,
            _opened("local", LocalSettings(root=str(folder / "local"))) as local,
            _opened("ssh", ssh.settings()) as over_ssh,
            _opened("adb", phone.settings()) as over_adb,
        ):
            links = {"local": local, "ssh": over_ssh, "adb": over_adb}
            tools = _tools(ssh.settings(), phone.settings())
            tables = [_calls(links, tools), *_files(folder, links, tools)]
    host, _, port = PHONE.partition(":")
    if adbd.listens(host, int(port)):
        tables.append(_phone())
    return tables


@contextlib.contextmanager
def _opened(device: str, settings: TransportSettings) -> Iterator[Transport]:
    with open_transport(settings, device=device) as transport:
        yield transport


class _Tool:
    """What a user would type. ``prefix`` stands before the device's path in a copy."""

    def __init__(self, run: list[str], push: list[str], pull: list[str], prefix: str = "") -> None:
        self._run, self._push, self._pull, self._prefix = run, push, pull, prefix

    def true(self) -> None:
        _done([*self._run, "true"])

    def push(self, local: Path, remote: str) -> None:
        _done([*self._push, str(local), f"{self._prefix}{remote}"])

    def pull(self, remote: str, local: Path) -> None:
        _done([*self._pull, f"{self._prefix}{remote}", str(local)])


def _tools(ssh: SshSettings, adb: AdbSettings) -> dict[str, _Tool]:
    options = ["-F", "none", "-i", str(ssh.key), "-o", "IdentitiesOnly=yes"]
    options += ["-o", f"UserKnownHostsFile={ssh.known_hosts}"]
    where = f"{ssh.user}@{ssh.host}"
    scp = ["scp", "-q", "-P", str(ssh.port), *options]
    client = [adb.adb, "-P", str(adb.server_port), "-s", adb.serial]
    return {
        "ssh": _Tool(["ssh", "-p", str(ssh.port), *options, where], scp, scp, f"{where}:"),
        "adb": _Tool([*client, "shell"], [*client, "push"], [*client, "pull"]),
    }


def _done(argv: list[str]) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def _calls(links: dict[str, Transport], tools: dict[str, _Tool]) -> Table:
    arms: dict[str, Call] = {}
    for name, link in links.items():
        arms[f"{name}: ping"] = _pinging(link)
        arms[f"{name}: run true"] = _running(link)
    arms |= {"`ssh true`": tools["ssh"].true, "`adb shell true`": tools["adb"].true}
    taken = interleave(arms, TURNS)
    table = Table("small calls, one after the other", "ms")
    for name, seconds in taken.items():
        spread = table.add(name, scaled(seconds, 1e3))
        table.note(f"{name}: {1000 / spread.p50:,.0f} calls/s")
    table.note("`ssh true` logs in each time; the transport keeps one connection")
    return table


def _pinging(link: Transport) -> Call:
    return lambda: link.ping(timeout=CALL_S)


def _running(link: Transport) -> Call:
    return lambda: link.run(["true"], timeout=CALL_S)


def _files(folder: Path, links: dict[str, Transport], tools: dict[str, _Tool]) -> list[Table]:
    """Bytes that do not compress, pushed and pulled; the transport's push is hashed and renamed."""
    source, back = folder / "source", folder / "back"
    source.write_bytes(os.urandom(SIZE))
    push: dict[str, Call] = {}
    pull: dict[str, Call] = {}
    for name, link in links.items():
        remote = link.root() / "bench"
        push[name] = _pushing(link, source, remote)
        pull[name] = _pulling(link, remote, back)
        if name in tools:
            word = "scp" if name == "ssh" else "adb push"
            push[f"`{word}`"] = _tool_push(tools[name], source, f"{folder}/{name}-tool")
            word = "scp" if name == "ssh" else "adb pull"
            pull[f"`{word}`"] = _tool_pull(tools[name], f"{folder}/{name}-tool", back)
    arms = {"cp": lambda: shutil.copyfile(source, back)}
    tables = []
    for title, calls in (("push", {**push, **arms}), ("pull", {**pull, **arms})):
        table = Table(f"{title} of {SIZE >> 20} MiB", "MB/s")
        for name, seconds in interleave(calls, FILE_TURNS, warm=1).items():
            table.add(name, [SIZE / 1e6 / s for s in seconds])
        tables.append(table)
    tables[0].note("adb's push includes the hash taken on the device: adb tells no full disk")
    return tables


def _pushing(link: Transport, source: Path, remote: PurePosixPath) -> Call:
    return lambda: link.push(source, remote, timeout=CALL_S)


def _pulling(link: Transport, remote: PurePosixPath, local: Path) -> Call:
    return lambda: link.pull(remote, local, timeout=CALL_S)


def _tool_push(tool: _Tool, source: Path, remote: str) -> Call:
    return lambda: tool.push(source, remote)


def _tool_pull(tool: _Tool, remote: str, local: Path) -> Call:
    return lambda: tool.pull(remote, local)


def _phone() -> Table:
    """An emulator's figures: they say that it works, and what the tests cost."""
    settings = AdbSettings(serial=PHONE, root="/data/local/tmp/assay-bench")
    table = Table("the emulated phone (says nothing of phones)", "ms")
    with open_transport(settings, device="qemu-phone") as link:
        arms = {"ping": _pinging(link), "run true": _running(link)}
        for name, seconds in interleave(arms, 10, warm=1).items():
            table.add(name, scaled(seconds, 1e3))
        link.run(["rm", "-rf", str(link.root())], timeout=CALL_S)
    return table
