"""Hostile devices beside an honest one in one run: each is one line, and nobody else is hurt."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from orchestrator.coordinator import loop as module
from orchestrator.coordinator.loop import Stop, work_off
from orchestrator.fanout.inprocess import InProcess
from orchestrator.queue.states import AttemptState, CellState, RunState
from orchestrator.reports.progress import PlainProgress
from orchestrator.run import enqueue, plan
from orchestrator.runs.snapshot import load_run
from orchestrator.staging.stage import here
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from tests.support import hostile
from tests.support.tiny import Tiny

pytestmark = pytest.mark.timeout(240)

GARBAGE, FILES, SHAPE = "E-WORKER-GARBAGE", "E-RESULT-FILES", "E-RESULT-SHAPE"
EXPECTED = {
    "role-relative": FILES,
    "role-absolute": FILES,
    "place": FILES,
    "link": "E-TRANSFER",
    "wrong-hash": "E-TRANSFER-HASH",
    "flipped-file": "E-TRANSFER-HASH",
    "another-attempt": "E-RESULT-JOB",
    "nan": GARBAGE,
    "nan-telemetry": "E-RESULT-FORM",
    "negative-latency": "E-RESULT-VALUE",
    "count": SHAPE,
    "shape": SHAPE,
    "dtype": SHAPE,
    "claims-tebibytes": "E-RESULT-FORM",
    "announces-tebibytes": "E-RESULT-SIZE",
    "fifo": "E-TRANSFER",
    "endless": "E-TRANSFER",
    "grows": "E-TRANSFER",
    "sparse": "E-TRANSFER",
    "board": GARBAGE,
    "heartbeat": GARBAGE,
    "deep": GARBAGE,
    "surrogate": GARBAGE,
    "long-line": GARBAGE,
    "slow-loris": "E-SILENCE",
}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_lie_is_one_line_and_every_other_cell_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(EXPECTED) == set(hostile.MODES)
    scratch, farm = tmp_path / "scratch", tmp_path / "farm"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(module, "POLL_S", 0.02)
    tiny = Tiny(farm / "matrix")
    tiny.inputs["limit"] = 3
    tiny.matrix["timeouts"] = {"silence": "10s"}
    tiny.matrix["retry"] = {"infra": 0}
    honest = ["bench", "sound"]
    tiny.devices = [tiny.device(name) for name in honest] + [
        tiny.device(mode, python={"default": hostile.interpreter(tmp_path / "programs", mode)})
        for mode in EXPECTED
    ]
    said = io.StringIO()
    with Store.open(farm / "store") as store:
        run = enqueue(store, plan(tiny.write(), []), here)
        before = names(tmp_path), names(farm)
        fan = InProcess(farm / "store" / "spool")
        progress = PlainProgress(said)
        progress.start(len(store.cells(run)))
        frozen = load_run(store.frozen(run))
        work_off(store, fan, run, frozen, progress, Stop(), this_process())
        fan.close()
        assert store.run(run).state is RunState.DONE
        cells = {cell.unit: cell for cell in store.cells(run)}
        attempts = {attempt.device: attempt for attempt in store.attempts(run)}
        assert {cell.state for cell in cells.values()} == {CellState.DONE}
        assert {cells[name].outcome for name in honest} == {AttemptState.OK}
        found = {mode: attempts[mode].error_id for mode in EXPECTED}
        if found["grows"] == "E-TRANSFER-HASH":  # its size was taken before it grew on
            found["grows"] = "E-TRANSFER"
        assert found == EXPECTED
        for mode in EXPECTED:
            attempt = attempts[mode]
            timeout = mode == "slow-loris"
            assert attempt.state is (AttemptState.TIMEOUT if timeout else AttemptState.INFRA_ERROR)
            assert (attempt.result, attempt.artefacts) == (None, {})
            assert attempt.error is not None
            assert attempt.error.isprintable()
            assert len(attempt.error) < 600
            assert said.getvalue().count(attempt.error) == 1
    assert (names(tmp_path), names(farm)) == before
    assert names(farm / "store") == {"artefacts", "assay.db", "farm-id", "spool"}
    assert names(scratch) == set()
    assert names(farm / "matrix" / "devices") == {*honest, *EXPECTED, "secret"}
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]
