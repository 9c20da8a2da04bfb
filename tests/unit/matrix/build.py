"""Small matrices and inventories for these tests, as the data a YAML file would hold."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.model import Matrix

MATRIX: dict[str, Any] = {
    "version": 1,
    "name": "m",
    "inventory": "inventory.yaml",
    "models": [
        {
            "name": "net",
            "task": {"type": "classification"},
            "fp32": "net.fp32.onnx",
            "inputs": "set",
            "files": [
                {"name": "q", "path": "net.q.onnx", "layout": "nchw"},
                {"name": "i", "path": "net.i.tflite"},
            ],
        }
    ],
    "inputs": [{"name": "set", "type": "npz", "path": "set.npz", "labels": "y"}],
    "devices": [{"name": "*"}],
    "runtimes": [
        {"name": "ort", "runtime": "onnxruntime"},
        {"name": "lite", "runtime": "litert"},
    ],
    "conditions": ["clean", "repeat:10"],
}


def edited(*edits: tuple[str, Any]) -> dict[str, Any]:
    """A copy of MATRIX with values set at dotted paths (``models.0.name``)."""
    data = copy.deepcopy(MATRIX)
    for path, value in edits:
        *parents, last = path.split(".")
        at: Any = data
        for part in parents:
            at = at[int(part)] if isinstance(at, list) else at[part]
        if isinstance(at, list):
            at[int(last)] = value
        else:
            at[last] = value
    return data


def matrix(*edits: tuple[str, Any]) -> Matrix:
    return Matrix.model_validate_json(json.dumps(edited(*edits)))


def inventory(*devices: tuple[str, str, list[str]]) -> Inventory:
    """Devices as (name, class, tags)."""
    data = [
        {
            "name": name,
            "class": kind,
            "tags": tags,
            "transport": {"type": "local"},
            "python": {"default": "python3"},
        }
        for name, kind, tags in devices
    ]
    return Inventory.model_validate_json(json.dumps({"version": 1, "devices": data}))


def written(folder: Path, data: Any, name: str = "m.yaml") -> Path:
    """``data`` as a YAML file (JSON is YAML)."""
    path = folder / name
    path.write_text(json.dumps(data, indent=1))
    return path
