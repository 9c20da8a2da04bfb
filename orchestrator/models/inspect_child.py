"""The child of `inspect`: limits itself, reads one model file, prints one JSON object."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError

MEMORY = 4 << 30
"""Bytes of address space: room for the runtime's libraries and a model of about 1 GiB."""
CPU_SECONDS = 60
MAX_ANSWER = 1 << 20


def limit() -> None:
    """Memory, CPU time, no core file, no file written."""
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def read(path: Path) -> dict[str, Any]:
    """Raises InputError, or whatever the parsers raise on a file that is none."""
    if not path.is_file():
        raise InputError("E-MODEL-UNREADABLE", "there is no such file")
    if path.suffix.lower() == ".onnx":
        from orchestrator.models.inspect_onnx import read_onnx

        return read_onnx(path)
    if path.suffix.lower() == ".tflite":
        from orchestrator.models.inspect_tflite import read_tflite

        return read_tflite(path)
    raise InputError("E-MODEL-UNREADABLE", "neither .onnx nor .tflite")


def main(path: str) -> int:
    return serve(lambda: read(Path(path)))


def serve(work: Callable[[], dict[str, Any]]) -> int:
    """Print what ``work`` answers, done under `limit`, or the error that it ended with."""
    # Runtimes print to stdout; only the answer may go there.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    limit()
    try:
        text = json.dumps(work(), allow_nan=False)
        if len(text) > MAX_ANSWER:
            raise InputError("E-MODEL-UNREADABLE", "describes itself in more than 1 MiB")
    except InputError as error:
        text = _told(error)
    # Parsers of hostile bytes raise anything; each of them means the same, and is passed on.
    except Exception as error:  # noqa: BLE001
        text = _told(no_model(error))
    answers.write(text)
    answers.close()
    return 0


def no_model(error: Exception, where: str | None = None) -> InputError:
    """What it means that a parser ended with ``error``."""
    if isinstance(error, MemoryError):
        what = f"reading it needs more than {MEMORY >> 30} GiB of memory"
    else:
        what = f"not a readable model: {type(error).__name__}: {str(error)[:300]}"
    return InputError("E-MODEL-UNREADABLE", what, where=where)


def _told(error: InputError) -> str:
    told = {"error": error.id, "what": error.what, "where": error.where, "fix": error.fix}
    return json.dumps(told)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
