"""The smoke models: the package holds what the script makes, and every runtime is right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra import smoke as maker
from orchestrator.devices import smoke
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.transports import LocalSettings, open_transport
from tests.support.cli import REPO

TFLITE = REPO / ".venv-tflite" / "bin" / "python"


def test_the_files_are_those_that_the_script_makes(tmp_path: Path) -> None:
    maker.main(tmp_path)
    for name in ("smoke.onnx", "smoke.tflite"):
        kept = (smoke.FOLDER / name).read_bytes()
        assert kept == (tmp_path / name).read_bytes()
        assert len(kept) < 2048


def test_every_answer_fits_an_int8() -> None:
    assert smoke.expected()[0] == [6, 6, 22]
    assert all(-128 <= value <= 127 for row in smoke.expected() for value in row)


@pytest.mark.parametrize(
    ("runtime", "python"),
    [("onnxruntime", sys.executable), ("litert", sys.executable), ("tflite-runtime", str(TFLITE))],
)
def test_a_runtime_gives_the_right_answer_and_a_wrong_one_shows(
    runtime: str, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path(python).exists():
        pytest.skip("no environment for tflite-runtime here (make demo)")
    transport = open_transport(LocalSettings(root=str(tmp_path)), device="d")
    with DeviceSession(
        transport, device="d", owner="o", token=1, limits=Limits(120, 60)
    ) as session:
        found = smoke.infer(session, session.worker(python), runtime, timeout=120)
        assert found.got is None
        assert sum(found.backend.nodes.values()) > 0
        right = smoke.expected()
        monkeypatch.setattr(smoke, "BIAS", (5, -7, 12))
        again = smoke.infer(session, session.worker(python), runtime, timeout=120)
        assert again.got == right
