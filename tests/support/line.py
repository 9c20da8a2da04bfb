"""What a run amounts to, however often it was killed; and the processes that it leaves behind.

A coordinator leads a session of its own, in which all that Ray starts for it stays; every device
worker names its device's root on its command line. So a test finds what outlived a coordinator, and
only what is its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.queue.states import AttemptState, CellState
from orchestrator.store.database import Store
from orchestrator.store.records import RunInfo
from tests.support.cli import Running, start
from tests.support.tiny import MODELS, Tiny

JUDGED = ("verdict", "reasons", "coverage", "rows", "pairs", "fleet", "classes")
RAY_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""When Ray's other processes were killed, these try to tell them so for 60 s, then end."""
DIFFERING = ("attempt", "attempts", "timing_valid")


@dataclass(frozen=True)
class Summary:
    """Equal for equal runs. ``outputs``: cell -> hashes of what its counting attempt brought."""

    outcomes: dict[str, str]
    outputs: dict[str, tuple[str, ...]]
    judged: Any


def summary(store: Path, run: str | None = None) -> Summary:
    """Of a finished run. Asserts that every cell counts one attempt only, and no lease leaked."""
    with Store.open(store, readonly=True) as opened:
        run = opened.run(run).id
        cells, attempts = opened.cells(run), {a.id: a for a in opened.attempts(run)}
        document, leases = opened.verdict(run), opened.leases()
    assert leases == []
    assert document is not None
    assert {c.state for c in cells} == {CellState.DONE}
    assert not [a.id for a in attempts.values() if not a.state.final]
    for cell in cells:
        answers = [
            a.id
            for a in attempts.values()
            if a.cell == cell.id and a.state not in (AttemptState.CANCELLED, _INFRA)
        ]
        counts = attempts[cell.attempt or ""]
        assert (counts.cell, counts.state) == (cell.id, cell.outcome)
        assert answers == ([counts.id] if counts.state is not _INFRA else [])
    return Summary(
        outcomes={c.id: str(c.outcome) for c in cells},
        outputs={
            c.id: tuple(
                f"{role} {blob.sha256}"
                for role, blob in sorted(attempts[c.attempt or ""].artefacts.items())
                if role.startswith("output-") or role == "sample_hashes"
            )
            for c in cells
        },
        judged=_stable({part: document[part] for part in JUDGED}),
    )


_INFRA = AttemptState.INFRA_ERROR


def _stable(value: Any) -> Any:
    """Without what differs between equal runs: the IDs of attempts, and whether clocks moved."""
    if isinstance(value, dict):
        return {k: _stable(v) for k, v in value.items() if k not in DIFFERING}
    return [_stable(v) for v in value] if isinstance(value, list) else value


def slow(tiny: Tiny, units: Sequence[str] = ("one", "two"), passes: int = 400) -> Tiny:
    """Eight cells for each unit; those on the reference kernels take a good part of a second.

    ``passes`` over 8 samples, some more with every condition.
    """
    tiny.devices = [tiny.device(name, **{"class": "host"}) for name in units]
    tiny.matrix["devices"] = [{"name": name} for name in units]
    tiny.file.update(name="int8", path=str(MODELS / "digits_cnn.int8.tflite"), layout="same")
    tiny.matrix["runtimes"] = [
        {"name": "ref", "runtime": "litert", "kernels": "reference"},
        {"name": "lite", "runtime": "litert"},
    ]
    tiny.matrix["conditions"] = ["clean", *(f"repeat:{passes + 50 * n}" for n in range(3))]
    tiny.policy["reference"] = [{"device": units[0], "runtime": "lite"}]
    return tiny


class Coordinator:
    """One `assay` process on ``store``, whatever it starts, and the workers under ``roots``."""

    def __init__(
        self, *arguments: str | Path, store: Path, roots: Sequence[Path], executor: str
    ) -> None:
        self._store, self._roots = store, roots
        env = {"ASSAY_EXECUTOR": executor}
        self.running: Running = start(*arguments, "--json", store=store, env=env)

    def kill(self) -> None:
        """SIGKILL to the coordinator alone."""
        self.running.process.kill()
        self.running.process.wait()

    def until(self, reached: Callable[[RunInfo], object], timeout: float = 90.0) -> None:
        """Wait until the newest run in the store is in a certain state."""
        end = time.monotonic() + timeout
        while (found := newest(self._store)) is None or not reached(found):
            assert self.running.process.poll() is None, self.running.wait().err
            assert time.monotonic() < end, f"waited {timeout} s in vain; it stands at {found}"
            time.sleep(0.005)

    def named(self, command: str) -> list[int]:
        """Its living processes whose command line begins with ``command``."""
        return [p for p in self._session() if _command(p).startswith(command)]

    def left(self) -> dict[int, str]:
        """What lives of it, here and on its devices: pid -> command line."""
        found = {*self._session(), *(p for root in self._roots for p in workers(root))}
        return {pid: _command(pid)[:120] for pid in sorted(found)}

    def gone(self, timeout: float = 20.0, but: Sequence[str] = ()) -> None:
        """Assert that nothing of it is left, now or soon, ``but`` commands that begin like this."""
        end = time.monotonic() + timeout
        while left := [c for c in self.left().values() if not c.startswith(tuple(but))]:
            assert time.monotonic() < end, f"left behind: {left}"
            time.sleep(0.05)

    def _session(self) -> list[int]:
        leader = self.running.process.pid
        return [pid for pid in _pids() if _session_of(pid) == leader]


@contextlib.contextmanager
def coordinator(
    *arguments: str | Path, store: Path, roots: Sequence[Path], executor: str = "inprocess"
) -> Iterator[Coordinator]:
    """A Coordinator of which nothing remains afterwards, whatever the test came to."""
    made = Coordinator(*arguments, store=store, roots=roots, executor=executor)
    try:
        yield made
    finally:
        for pid in made.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        made.running.process.wait()
        for stream in (made.running.process.stdout, made.running.process.stderr):
            if stream is not None:
                stream.close()


def newest(store: Path) -> RunInfo | None:
    """The newest run, None before there is one."""
    try:
        with Store.open(store, readonly=True) as opened:
            return next(iter(opened.runs(1)), None)
    except InputError as error:
        if error.id != "E-STORE-MISSING":
            raise
        return None


def done(run: RunInfo) -> int:
    return run.cells[CellState.DONE]


def workers(root: Path) -> list[int]:
    """Living device workers whose device root is ``root``."""
    found = {pid: _read(pid, "cmdline").split(b"\0") for pid in _pids()}
    return [pid for pid, argv in found.items() if b"session" in argv and str(root).encode() in argv]


def pids_of(command: str) -> list[int]:
    """Living processes whose command line ends with ``command``."""
    return [p for p in _pids() if _command(p).endswith(command)]


def descendants(pid: int, command: str) -> list[int]:
    """Living descendants whose command line contains ``command``."""
    found: list[int] = []
    for child in _read(pid, f"task/{pid}/children").split():
        found += [int(child)] if command in _command(int(child)) else []
        found += descendants(int(child), command)
    return found


def _command(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def _pids() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def _session_of(pid: int) -> int | None:
    """None for what is dead, though its parent did not yet ask how it ended."""
    # proc(5): the second field is the name in brackets, and may hold brackets and spaces.
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[3]) if fields and fields[0] not in (b"Z", b"X") else None


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
