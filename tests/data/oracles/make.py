"""Write metrics.json: cases with what well-known libraries make of them.

Run by hand in an environment of its own, for torch is too heavy for this project's:

    python -m venv V && V/bin/pip install numpy torch torchmetrics pytorch-ignite
    V/bin/python tests/data/oracles/make.py

Cases are seeded; values are rounded before the libraries see them, so the file says all.
"""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("metrics.json")
LIBRARIES = ("numpy", "pytorch-ignite", "torch", "torchmetrics")
BINS = 15


def main() -> None:
    torch = import_module("torch")
    torch.set_default_dtype(torch.float64)
    about = {name: version(name) for name in LIBRARIES}
    made = {"versions": about, "ece": _ece(torch), "kappa": _kappa(torch), "mmd": _mmd(torch)}
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in made.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _ece(torch: Any) -> list[dict[str, Any]]:
    """Probabilities [n, classes], labels [n] -> expected calibration error, L1, 15 bins.

    No confidence lies on an edge of a bin but for those of "saturated": torchmetrics closes its
    bins below and gives 1.0 a bin of its own, Guo et al. close them above.
    """
    measure = import_module("torchmetrics.functional.classification").multiclass_calibration_error
    rng = np.random.default_rng(0)
    cases = {
        "softmax": _softmax(rng.normal(0, 2, (60, 4))),
        "timid": _softmax(rng.normal(0, 0.3, (50, 10))),
        "int8 steps": np.floor(256 * _softmax(rng.normal(0, 2, (60, 5)))) / 256,
        "saturated": np.eye(3)[rng.integers(0, 3, 40)],
        "one sample": _softmax(rng.normal(0, 1, (1, 3))),
    }
    found = []
    for name, p in cases.items():
        p = np.round(p, 8)
        n, classes = p.shape
        labels = np.where(rng.random(n) < 0.7, p.argmax(axis=1), rng.integers(0, classes, n))
        value = measure(torch.tensor(p), torch.tensor(labels), classes, BINS, "l1")
        case = {"name": name, "p": p.tolist(), "labels": labels.tolist()}
        found.append(case | {"expected": float(value)})
    return found


def _kappa(torch: Any) -> list[dict[str, Any]]:
    """Two raters' decisions [n] -> Cohen's kappa."""
    measure = import_module("torchmetrics.functional.classification").multiclass_cohen_kappa
    rng = np.random.default_rng(1)
    found = []
    for agree in (0.0, 0.5, 0.95):
        a = rng.integers(0, 5, 80)
        b = np.where(rng.random(80) < agree, a, rng.integers(0, 5, 80))
        value = measure(torch.tensor(a), torch.tensor(b), 5)
        found.append({"a": a.tolist(), "b": b.tolist(), "expected": float(value)})
    return found


def _mmd(torch: Any) -> list[dict[str, Any]]:
    """Root of the unbiased MMD^2 of points x and y [n, features], 0 where that is negative.

    RBF kernel whose variance is the median squared distance of the pooled points.
    """
    metric = import_module("ignite.metrics").MaximumMeanDiscrepancy
    rng = np.random.default_rng(2)
    found = []
    for shift, scale, features in ((0.0, 1.0, 2), (1.0, 1.0, 3), (0.0, 3.0, 1), (0.4, 1.0, 8)):
        x = np.round(rng.normal(0, 1, (25, features)), 6)
        y = np.round(rng.normal(shift, scale, (25, features)), 6)
        pooled = torch.tensor(np.concatenate([x, y]))
        variance = float(np.median(torch.pdist(pooled).numpy() ** 2))
        of = metric(var=variance)
        of.update((torch.tensor(x), torch.tensor(y)))
        case = {"x": x.tolist(), "y": y.tolist(), "variance": variance}
        found.append(case | {"expected": of.compute()})
    return found


def _softmax(values: Any) -> Any:
    e = np.exp(values - values.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    main()
