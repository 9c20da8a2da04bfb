"""The child of `surgery`: limits itself, then does the one thing that it is asked on stdin."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.models.graph import Form, Graph, NotLocalisableError, Piece
from orchestrator.models.inspect_child import limit
from orchestrator.models.surgery import unpacked

Told = tuple[Any, list[bytes]]


def _read_tflite(files: Sequence[bytes], asked: Mapping[str, Any]) -> Told:
    from orchestrator.models import cut_tflite

    return _graph(cut_tflite.read(files[0]))


def _cut_tflite(files: Sequence[bytes], asked: Mapping[str, Any]) -> Told:
    from orchestrator.models import cut_tflite

    return _pieces(cut_tflite.cut(files[0], [(first, last) for first, last in asked["spans"]]))


def _meant_tflite(files: Sequence[bytes], asked: Mapping[str, Any]) -> Told:
    from orchestrator.models import cut_tflite

    return _pieces(cut_tflite.meant(files[0]))


def _read_optimised(files: Sequence[bytes], asked: Mapping[str, Any]) -> Told:
    from orchestrator.models import optimised

    return _graph(optimised.read(files[0]))


def _tap_optimised(files: Sequence[bytes], asked: Mapping[str, Any]) -> Told:
    from orchestrator.models import optimised

    return _pieces([optimised.tap(file) for file in files])


def _alone_optimised(files: Sequence[bytes], asked: Mapping[str, Any]) -> Told:
    from orchestrator.models import optimised

    return _pieces(optimised.alone(files[0], _forms(asked)))


def _compare_optimised(files: Sequence[bytes], asked: Mapping[str, Any]) -> Told:
    from orchestrator.models import optimised

    return asdict(optimised.compare(*files)), []


def _twinned(files: Sequence[bytes], asked: Mapping[str, Any]) -> Told:
    from orchestrator.models import dequantised, optimised, tensor_roles

    file, graph, parent = files
    forms = _forms(asked)
    found = tensor_roles.read(file, graph, forms, asked["shapes"])
    tapped = optimised.tap(graph, found.stands_for)
    whole = optimised.tap(parent, set(found.stands_for.values()))
    alone = optimised.alone(graph, forms, weights=True)
    plain = dequantised.pieces(file, alone, found, asked["shapes"])
    pieces, models = _pieces([tapped, whole, *alone, *plain])
    read = _read_optimised([graph], asked)[0]
    return {"graph": read, "meanings": asdict(found), "pieces": pieces}, models


DO: Mapping[str, Callable[[Sequence[bytes], Mapping[str, Any]], Told]] = {
    "read_tflite": _read_tflite,
    "cut_tflite": _cut_tflite,
    "meant_tflite": _meant_tflite,
    "read_optimised": _read_optimised,
    "tap_optimised": _tap_optimised,
    "alone_optimised": _alone_optimised,
    "compare_optimised": _compare_optimised,
    "twinned": _twinned,
}


def main() -> int:
    # Parsers print to stdout; only the answer may go there.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit()
    line, _, rest = sys.stdin.buffer.read().partition(b"\n")
    asked = json.loads(line)
    files: list[bytes] = []
    try:
        answer, files = DO[asked["do"]](unpacked(rest, asked["sizes"]), asked)
        told = {"answer": answer}
    except NotLocalisableError as error:
        told = {"not_localisable": str(error)}
    except MemoryError:
        told = {"error": "taking it apart needs too much memory"}
    # Parsers of hostile bytes raise anything; each of them means the same, and is passed on.
    except Exception as error:  # noqa: BLE001
        told = {"error": f"not a readable model: {type(error).__name__}: {str(error)[:300]}"}
    told["sizes"] = [len(file) for file in files]
    answers.write(b"".join([json.dumps(told).encode(), b"\n", *files]))
    answers.close()
    return 0


def _forms(asked: Mapping[str, Any]) -> dict[str, Form]:
    return {name: (dtype, shape) for name, (dtype, shape) in asked["tensors"].items()}


def _graph(graph: Graph) -> Told:
    return asdict(graph), []


def _pieces(pieces: Sequence[Piece]) -> Told:
    told = [{"inputs": piece.inputs, "outputs": piece.outputs} for piece in pieces]
    return told, [piece.model for piece in pieces]


if __name__ == "__main__":
    raise SystemExit(main())
