"""Models that carry state, on every runtime and kernel set that runs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from device_worker import wire
from device_worker.measure import shuffled
from tests.contract.test_runtimes import TFLITE_PYTHON
from tests.support import stateful
from tests.unit.device_worker.harness import Array, WorkerProcess

N, SEED = 9, 4
X = np.random.default_rng(0).integers(1, 9, (N, stateful.WIDTH)).astype(np.float32)
ORDER = list(shuffled(N, SEED))


def summed(order: list[int]) -> Array:
    """What `stateful.running_sum` answers after warming up with the first sample."""
    out = np.zeros_like(X)
    out[order] = np.cumsum(X[order], axis=0)
    found: Array = out + X[0]
    return found


def remembered(order: list[int]) -> Array:
    """What `stateful.svdf` does: half the sum of this input and the two before it."""
    given = np.concatenate([np.zeros((1, stateful.WIDTH)), X[:1], X[order]])
    out = np.zeros_like(X)
    out[order] = (given[2:] + given[1:-1] + given[:-2]) / 2
    return out


@pytest.fixture(params=["litert", "tflite-runtime"])
def runtime(request: pytest.FixtureRequest) -> tuple[str, str]:
    python = sys.executable if request.param == "litert" else str(TFLITE_PYTHON)
    if not Path(python).exists():
        pytest.skip("no .venv-tflite on this machine: tflite-runtime is not available here")
    return str(request.param), python


@pytest.mark.parametrize(
    ("make", "fresh", "carried"),
    [(stateful.running_sum, X, summed), (stateful.svdf, X / 2, remembered)],
    ids=["resource", "variable"],
)
def test_state_is_reset_before_each_sample_unless_it_is_switched_off(
    runtime: tuple[str, str],
    make: Callable[[Path], Path],
    fresh: Array,
    carried: Callable[[list[int]], Array],
    tmp_path: Path,
) -> None:
    name, python = runtime
    model, number = make(tmp_path / "m.tflite"), 0
    with WorkerProcess(tmp_path / "root", python=python) as worker:
        for kernels in ("default", "builtin", "reference"):
            for reset in (True, False):
                spec = wire.RuntimeSpec(name, kernels=kernels, reset=reset)
                for order in (None, SEED):
                    number += 1
                    got = worker.run(
                        worker.job(model, {"x": X}, spec, f"a{number}", warmup=1, order=order)
                    )
                    ran = list(range(N)) if order is None else ORDER
                    wanted = fresh if reset else carried(ran)
                    renewed = [note for note in got.notes if note.startswith("reset: ")]
                    assert len(renewed) == (reset and make is stateful.running_sum)
                    assert np.array_equal(np.load(got.outputs[0].path), wanted), (kernels, reset)
                    if order is not None:
                        assert got.order == wire.Ordered(SEED, ORDER[0], same=reset)
