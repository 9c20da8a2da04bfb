"""Figures that well-known libraries define, against what those made of the same cases.

tests/data/oracles/make.py wrote the file and says how to write it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.variance.calibration import expected_calibration_error
from orchestrator.variance.drift import mmd
from orchestrator.variance.kappa import cohen

KNOWN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "oracles" / "metrics.json").read_text()
)

FLOAT32 = 1e-6
"""What torchmetrics counts in, give or take."""


@pytest.mark.parametrize("case", KNOWN["ece"], ids=lambda case: case["name"])
def test_calibration_error_is_that_of_torchmetrics(case: dict[str, Any]) -> None:
    p, labels = np.array(case["p"]), np.array(case["labels"])
    found = expected_calibration_error(p.max(axis=1), p.argmax(axis=1) == labels)
    assert found == pytest.approx(case["expected"], abs=FLOAT32)


@pytest.mark.parametrize("case", KNOWN["kappa"])
def test_cohens_kappa_is_that_of_torchmetrics(case: dict[str, Any]) -> None:
    found = cohen(np.array(case["a"]), np.array(case["b"]))
    assert found.value == pytest.approx(case["expected"], abs=FLOAT32)


@pytest.mark.parametrize("case", KNOWN["mmd"])
def test_mmd_is_that_of_pytorch_ignite(case: dict[str, Any]) -> None:
    found = mmd(np.array(case["x"]), np.array(case["y"]), seed=0, permutations=1)
    assert found.bandwidth is not None
    assert found.bandwidth**2 == pytest.approx(case["variance"], abs=1e-9)
    assert max(0.0, found.mmd2) ** 0.5 == pytest.approx(case["expected"], abs=1e-9)
