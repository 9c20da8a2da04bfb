"""A matrix small enough for one second: a quickstart model, a few digits, a local device."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.cli import REPO

QUICKSTART = REPO / "matrices" / "quickstart"
MODELS = QUICKSTART / "models"

_MATRIX: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "inventory": "inventory.yaml",
    "policy": "policy.yaml",
    "models": [
        {
            "name": "cnn",
            "task": {"type": "classification"},
            "fp32": {"path": str(MODELS / "digits_cnn.fp32.onnx"), "layout": "nchw"},
            "inputs": "digits",
            "files": [
                {"name": "u8s8", "path": str(MODELS / "digits_cnn.u8s8.onnx"), "layout": "nchw"}
            ],
        }
    ],
    "inputs": [
        {
            "name": "digits",
            "type": "npz",
            "path": str(QUICKSTART / "digits_8x8.npz"),
            "array": "x",
            "labels": "y",
            "limit": 20,
        }
    ],
    "devices": [{"name": "*"}],
    "runtimes": [{"name": "ort", "runtime": "onnxruntime"}],
    "conditions": ["clean"],
}
_OFF = {"enabled": False}
_POLICY: dict[str, Any] = {
    "name": "tiny",
    "reference": [{"device": "bench", "runtime": "ort"}],
    "gates": {
        "G0": {"enabled": True},
        **dict.fromkeys(("G2", "G3", "G5", "G6", "G7"), _OFF),
    },
}


class Tiny:
    """``matrix``, ``devices`` and ``policy`` are plain data to be spoilt; ``write`` makes files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.matrix: dict[str, Any] = copy.deepcopy(_MATRIX)
        self.policy: dict[str, Any] = copy.deepcopy(_POLICY)
        self.devices: list[dict[str, Any]] = [self.device("bench")]

    @property
    def file(self) -> dict[str, Any]:
        """The one INT8 file."""
        found: dict[str, Any] = self.matrix["models"][0]["files"][0]
        return found

    @property
    def inputs(self) -> dict[str, Any]:
        found: dict[str, Any] = self.matrix["inputs"][0]
        return found

    def device(self, name: str, **changes: Any) -> dict[str, Any]:
        """A unit of its own class on this machine, its root below the test's folder."""
        plain = {
            "name": name,
            "class": f"class-{name}",
            "transport": {"type": "local", "root": str(self.root(name))},
            "python": {"default": sys.executable},
        }
        return plain | changes

    def fake(self, name: str, *faults: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """A unit with scripted faults."""
        transport = {"type": "fake", "root": str(self.root(name)), "faults": list(faults)}
        return self.device(name, transport=transport, **changes)

    def serial(self, number: str) -> Path:
        """From now on "bench" is the unit of that serial; the file in which it shows it."""
        shown = self.folder / "serial-number"
        content = {
            "version": 1,
            "name": "desk",
            "title": "A board with a serial",
            "facts": [{"parser": "device_tree", "path": str(shown)}],
        }
        (self.folder / "classes").mkdir(parents=True, exist_ok=True)
        self._dump("classes/desk.yaml", content)
        self.devices = [self.device("bench", like="desk", identity={"serial": number})]
        shown.write_text(f"{number}\0")
        return shown

    def root(self, name: str = "bench") -> Path:
        return self.folder / "devices" / name

    def repeat(self, count: int, retry: int = 2) -> None:
        """Cells that last: ``count`` passes over 8 samples."""
        self.matrix["conditions"] = [f"repeat:{count}"]
        self.matrix["retry"] = {"infra": retry}

    def write(self) -> Path:
        """The three YAML files; the matrix' path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._dump("inventory.yaml", {"version": 1, "devices": self.devices})
        self._dump("policy.yaml", self.policy)
        return self._dump("matrix.yaml", self.matrix)

    def _dump(self, name: str, data: Any) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return path
