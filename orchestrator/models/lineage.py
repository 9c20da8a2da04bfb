"""Two model files → where the one comes from. Nothing of them is read in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.models.inspect import ask


def compare(int8: Path, fp32: Path) -> Mapping[str, Any]:
    """The fields of `verdict.Lineage` as plain data, for two .onnx or .tflite files.

    Raises InputError E-MODEL-UNREADABLE or E-MODEL-EXTERNAL-DATA, naming the file.
    """
    answer: Mapping[str, Any] = ask("orchestrator.models.lineage_child", int8, fp32)
    return answer
