"""The probe pack on this machine, in every runtime installed here, through a real worker."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from device_worker import wire
from device_worker.runtimes import FORMATS
from orchestrator.coordinator.device_pair import archive as archive_of
from orchestrator.coordinator.device_pair import tried
from orchestrator.devices.batch import Answers, run
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.diagnosis.pair import Trial, Tried
from orchestrator.errors import NotAvailableError
from orchestrator.fingerprint.identify import identify
from orchestrator.fingerprint.pack import archive, probes, wide
from orchestrator.transports import LocalSettings, open_transport
from tests.support.cli import REPO

TFLITE_PYTHON = REPO / ".venv-tflite" / "bin" / "python"


class Probing:
    """One session; every configuration is asked once and remembered.

    ``python``: runs the workers of all runtimes but tflite-runtime's.
    """

    def __init__(self, root: Path, python: str = sys.executable) -> None:
        self.name, self._python = "here", python
        transport = open_transport(LocalSettings(root=str(root)), device="here")
        self.session = DeviceSession(
            transport, device="here", owner="o", token=1, limits=Limits(600, 120)
        )
        self.answers = cache(self._answers)
        self.document = cache(self._document)

    def _answers(self, runtime: str, kernels: str, threads: int) -> Answers:
        """Skips the test where the runtime is not installed."""
        python = str(TFLITE_PYTHON) if runtime == "tflite-runtime" else self._python
        if not Path(python).exists():
            pytest.skip("no .venv-tflite on this machine: tflite-runtime is not available here")
        chosen = (probes if threads == 1 else wide)(FORMATS[runtime])
        spec = wire.RuntimeSpec(runtime, threads=threads, kernels=kernels)
        try:
            return run(self.session, self.session.worker(python), archive(chosen), spec)
        except NotAvailableError as error:
            pytest.skip(f"not available here: {error}")

    def run(self, trials: Sequence[Trial], *, optimise: bool = True) -> list[Tried]:
        """The trials as a `Side` of ONNX Runtime."""
        spec = wire.RuntimeSpec("onnxruntime", optimise=optimise)
        answers = run(self.session, self.session.worker(self._python), archive_of(trials), spec)
        return [tried(answer, self.name) for answer in answers.trials]

    def _document(self, runtime: str, kernels: str = "default") -> dict[str, Any]:
        once, twice = (self.answers(runtime, kernels, n) for n in (1, 2))
        return identify(FORMATS[runtime], once, {2: twice})

    def modes(self, runtime: str, kernels: str = "default") -> dict[str, str]:
        """Family -> mode."""
        found = self.document(runtime, kernels)["families"]
        return {name: family["mode"] for name, family in found.items()}
