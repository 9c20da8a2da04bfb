"""A hub and an accelerator unplugged, wedged or wrong: a stand-in, real worker processes."""

from __future__ import annotations

import hashlib
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_worker import wire
from orchestrator.devices.session import Limits
from orchestrator.errors import InfraError
from orchestrator.fanout import accelerator
from orchestrator.fanout.hub import Hub
from orchestrator.fanout.hub_job import Order, Target
from orchestrator.results.finished import Failure, Finished
from orchestrator.transports.settings import LocalSettings
from tests.support import edgetpu
from tests.support.cli import until
from tests.support.orders import refused

SAMPLES = 12
LOST = Failure("infra_error", "E-ACCELERATOR", "edgetpu failed", True)


class Coral:
    """A local device with a stand-in accelerator; ``cable`` is there while it is plugged in."""

    def __init__(self, folder: Path, class_: str = "standin-edgetpu") -> None:
        self.folder, self.class_ = folder, class_
        self.cable = folder / "cable"
        self.cable.write_text("")
        self.hub = Hub(folder / "spool")
        self.count = 0

    def order(self, *, reset: tuple[str, ...] = (), repeat: int = 1, cell: float = 60.0) -> Order:
        self.count += 1
        model, x = edgetpu.compiled(self.folder / "net.tflite"), self.folder / "x.npy"
        np.save(x, edgetpu.codes(SAMPLES))
        blobs = {
            p: wire.Blob(hashlib.sha256(d := p.read_bytes()).hexdigest(), len(d))
            for p in (model, x)
        }
        options = {"device": "usb", "state": str(self.cable)}
        delegate = wire.Delegate("edgetpu", str(edgetpu.library()), options)
        return Order(
            target=Target(
                "coral", self.class_, LocalSettings(root=str(self.folder / "device")), "farm", 1
            ),
            job=wire.Job(
                f"attempt-{self.count}",
                blobs[model],
                "tflite",
                [wire.InputTensor("in", blobs[x], "int8", [SAMPLES, 8])],
                wire.RuntimeSpec("litert", delegate=delegate),
                SAMPLES,
                repeat=repeat,
            ),
            python=sys.executable,
            blobs={blob.sha256: str(path) for path, blob in blobs.items()},
            limits=Limits(cell, 30.0),
            reset=reset,
        )

    def run(self, **fields: Any) -> Finished:
        return self.hub.run(self.order(**fields))

    def health(self, text: str) -> tuple[str, ...]:
        """A reset command that plugs the unit in again, in that health."""
        return ("sh", "-c", f"printf '%s' '{text}' > '{self.cable}'")

    def answer(self, finished: Finished) -> str:
        assert finished.failure is None, finished.failure
        return hashlib.sha256(finished.files["output-0"]).hexdigest()

    def lose(self) -> None:
        """One good attempt, then one in the middle of which the unit is unplugged."""
        self.answer(self.run())
        order = self.order(repeat=200_000_000)
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(self.hub.run, order)
            writing = self.folder / "device" / "out" / order.job.attempt / "output_0.npy"
            until(writing.exists, "it runs")
            self.cable.unlink()
            failed = running.result(60)
        assert refused(failed) == ("infra_error", "E-ACCELERATOR", True)
        assert failed.failure is not None
        assert "No such device" in failed.failure.text

    def hang(self) -> None:
        """One good attempt, then one that the unit never answers."""
        self.answer(self.run())
        self.cable.write_text("wedged")
        assert refused(self.run(cell=1.5))[:2] == ("timeout", "E-CELL-TIMEOUT")


@pytest.fixture
def coral(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(accelerator, "ANSWER_S", 1.0)
    monkeypatch.setattr(accelerator, "GOLDEN_S", 8.0)
    made = Coral(tmp_path)
    yield made
    made.hub.close()


def test_nothing_is_rehearsed_while_all_is_well(coral: Coral) -> None:
    finished = coral.run()
    again = coral.run()
    assert coral.answer(finished) == coral.answer(again)
    assert again.result is not None
    assert again.result["recovered"] is None
    assert again.result["environment"]["delegate"]["standin"] == "standin-edgetpu"


def test_a_unit_that_comes_back_must_give_its_earlier_answers(coral: Coral) -> None:
    coral.lose()
    coral.cable.write_text("")
    finished = coral.run()
    assert coral.answer(finished) == coral.answer(coral.run())
    assert finished.result is not None
    assert finished.result["recovered"] == (
        "edgetpu came back by itself after E-ACCELERATOR and gave its earlier answers"
    )


def test_the_reset_command_brings_a_unit_back(coral: Coral) -> None:
    coral.lose()
    finished = coral.run(reset=coral.health(""))
    coral.answer(finished)
    assert finished.result is not None
    assert "after a reset after E-ACCELERATOR" in finished.result["recovered"]


def test_a_unit_that_answers_otherwise_is_never_believed_again(coral: Coral) -> None:
    coral.lose()
    finished = coral.run(reset=coral.health("wrong"))
    assert refused(finished) == ("infra_error", "E-ACCELERATOR-WEDGED", False)
    assert finished.failure is not None
    assert "8 of 8 answers differ" in finished.failure.text
    coral.cable.write_text("")
    assert refused(coral.run())[:2] == ("infra_error", "E-ACCELERATOR-WEDGED")


def test_a_unit_that_stays_away_is_given_up_until_it_is_back(coral: Coral) -> None:
    coral.lose()
    gone = coral.run()
    assert refused(gone) == ("infra_error", "E-ACCELERATOR-WEDGED", False)
    assert gone.failure is not None
    assert "no accelerator answers at 'usb'" in gone.failure.text
    coral.cable.write_text("")
    coral.answer(coral.run())


def test_a_unit_that_still_hangs_is_given_up_in_time(coral: Coral, monkeypatch: Any) -> None:
    monkeypatch.setattr(accelerator, "GOLDEN_S", 1.5)
    coral.hang()
    assert refused(coral.run())[1] == "E-ACCELERATOR-WEDGED"


def test_a_reset_that_fails_is_said(coral: Coral) -> None:
    coral.lose()
    for argv, says in (
        (("sh", "-c", "echo no such port >&2; exit 3"), "ended with 3: no such port"),
        (("/no/such/command",), "cannot be started: No such file or directory"),
    ):
        finished = coral.run(reset=argv)
        assert refused(finished) == ("infra_error", "E-ACCELERATOR-RESET", True)
        assert finished.failure is not None
        assert says in finished.failure.text


def test_a_stand_in_may_not_be_listed_as_the_real_thing(tmp_path: Path) -> None:
    coral = Coral(tmp_path, class_="coral-usb")
    try:
        finished = coral.run()
        assert refused(finished) == ("infra_error", "E-DEVICE-IDENTITY", False)
        assert finished.failure is not None
        assert "the device says 'standin-edgetpu'" in finished.failure.text
    finally:
        coral.hub.close()


# Parts that need no process ------------------------------------------------------------------


def test_a_reset_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    late = tmp_path / "late"
    with pytest.raises(InfraError, match=r"was not done within 0\.3 s") as caught:
        accelerator.reset(("sh", "-c", f"sleep 2; touch {late}"), "coral", timeout=0.3)
    assert caught.value.id == "E-ACCELERATOR-RESET"
    assert not late.exists()


def rows(*values: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([[v] * 32 for v in values], np.uint8).reshape(-1, 32))
    return buffer.getvalue()


def test_what_counts_as_a_wrong_answer() -> None:
    assert accelerator.wrong(rows(1, 2, 3), rows(1, 2), 0) is None
    assert accelerator.wrong(None, rows(1), 0) is None
    assert accelerator.wrong(None, rows(1), 1) == "it does not give the same answer twice"
    for garbage in (b"", b"no array", rows(1)[:-40]):
        with pytest.raises(InfraError, match="sample_hashes"):
            accelerator.wrong(rows(1), garbage, 0)
    assert accelerator.wrong(rows(1), rows(), 0) is not None
    assert accelerator.wrong(rows(1, 2), rows(1, 9), 0) == (
        "1 of 2 answers differ from those before its failure"
    )


def test_which_failures_cast_doubt(coral: Coral) -> None:
    job = coral.order().job
    assert accelerator.used(job) == "edgetpu"
    assert accelerator.doubtful(job, LOST)
    assert not accelerator.doubtful(job, replace(LOST, id="E-DISK-FULL"))
    plain = replace(job, runtime=wire.RuntimeSpec("litert"))
    assert accelerator.used(plain) is None
    assert not accelerator.doubtful(plain, replace(LOST, id="E-WORKER-DIED"))
    gpu = wire.RuntimeSpec("onnxruntime", providers=["CUDAExecutionProvider"])
    assert accelerator.used(replace(job, runtime=gpu)) == "CUDAExecutionProvider"


def test_a_golden_job_is_short(coral: Coral) -> None:
    golden = accelerator.golden_order(coral.order(repeat=50)).job
    assert (golden.samples, golden.repeat, golden.warmup) == (8, 2, 0)
    assert golden.attempt != coral.order().job.attempt
