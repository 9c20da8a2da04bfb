"""The child of `compare`: limits itself, reads two model files, prints one JSON object."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.models import inspect_child
from orchestrator.models.lineage_verdict import lineage
from orchestrator.models.weights import Weights


def read(path: Path) -> Weights:
    """Raises InputError for what is no model, named by its path."""
    try:
        inspect_child.read(path)
        if path.suffix.lower() == ".onnx":
            from orchestrator.models.read_onnx import read_weights
        else:
            from orchestrator.models.read_tflite import read_weights
        return read_weights(path)
    except InputError as error:
        raise InputError(error.id, error.what, where=str(path), fix=error.fix) from None
    # Parsers of hostile bytes raise anything; each of them means that this file is to blame.
    except Exception as error:
        raise inspect_child.no_model(error, where=str(path)) from error


def answer(int8: str, fp32: str) -> dict[str, Any]:
    return asdict(lineage(read(Path(int8)), read(Path(fp32))))


if __name__ == "__main__":
    raise SystemExit(inspect_child.serve(lambda: answer(*sys.argv[1:])))
