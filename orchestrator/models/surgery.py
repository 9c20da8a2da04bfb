"""Models read and cut in a limited subprocess: a file may be hostile, a graph from a device too.

Both directions have one form: a line of JSON, which ends with the sizes of what follows, then that.
Nothing the child says is trusted beyond being JSON and bytes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.models.graph import (
    Form,
    Graph,
    Lattice,
    Layer,
    Meanings,
    NotLocalisableError,
    Operator,
    Piece,
    PlanDifference,
)
from orchestrator.models.inspect import TIMEOUT


def read_tflite(model: bytes) -> Graph:
    """Raises NotLocalisableError; InputError E-MODEL-UNREADABLE. So does all of this module."""
    return _graph(_ask("read_tflite", [model])[0])


def cut_tflite(model: bytes, spans: Sequence[tuple[int, int]]) -> list[Piece]:
    """One piece for each (first, last) operator."""
    return _pieces(*_ask("cut_tflite", [model], spans=list(spans)))


def meant_tflite(model: bytes) -> list[Piece]:
    """Every operator as the file's own numbers mean it, in float; see `tflite.meant`."""
    return _pieces(*_ask("meant_tflite", [model]))


def read_optimised(graph: bytes) -> Graph:
    return _graph(_ask("read_optimised", [graph])[0])


def tap_optimised(*graphs: bytes) -> list[Piece]:
    """Each with every tensor that it computes as an output, its own outputs first."""
    return _pieces(*_ask("tap_optimised", graphs))


def alone_optimised(graph: bytes, tensors: Mapping[str, Form]) -> list[Piece]:
    """Every operator as a model of its own; ``tensors``: dtype and shape of what is computed."""
    forms = {name: [dtype, list(shape)] for name, (dtype, shape) in tensors.items()}
    return _pieces(*_ask("alone_optimised", [graph], tensors=forms))


def compare_optimised(a: bytes, b: bytes) -> PlanDifference:
    told = _ask("compare_optimised", [a, b])[0]
    layers = tuple(Layer(**layer) for layer in told["layers"])
    return PlanDifference(layers, told["a"], told["b"], told["same"])


@dataclass(frozen=True)
class Twinned:
    """A file's optimised ``graph`` beside its FP32 parent.

    ``alone``: every operator as a model of its own, weights and all; ``meant``: each as the file's
    own numbers mean it, in float, see `meant.pieces`. ``tapped``, ``parent``: both graphs with the
    tensors that have a twin as outputs, and no more.
    """

    graph: Graph
    meanings: Meanings
    alone: list[Piece]
    meant: list[Piece]
    tapped: Piece
    parent: Piece


def twinned(
    file: bytes,
    graph: bytes,
    parent: bytes,
    forms: Mapping[str, Form],
    shapes: Mapping[str, Sequence[int]],
) -> Twinned:
    """``forms``: of the tensors of ``graph``; ``shapes``: of ``parent``. As `meanings.read`."""
    told, models = _ask(
        "twinned",
        [file, graph, parent],
        tensors={name: [dtype, list(shape)] for name, (dtype, shape) in forms.items()},
        shapes={name: list(shape) for name, shape in shapes.items()},
    )
    means = told["meanings"]
    lattices = {name: Lattice(**lattice) for name, lattice in means["lattices"].items()}
    meanings = Meanings(means["stands_for"], lattices, means["dequantised"])
    tapped, whole, *pieces = _pieces(told["pieces"], models)
    graph_read = _graph(told["graph"])
    count = len(graph_read.operators)
    return Twinned(graph_read, meanings, pieces[:count], pieces[count:], tapped, whole)


def _ask(what: str, files: Sequence[bytes], **arguments: Any) -> tuple[Any, list[bytes]]:
    head = {"do": what, **arguments, "sizes": [len(file) for file in files]}
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", "orchestrator.models.surgery_child"],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            input=b"".join([json.dumps(head).encode(), b"\n", *files]),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _unreadable(f"taking it apart took longer than {TIMEOUT:.0f} s") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise _unreadable(f"taking it apart ended with {name}")
    try:
        line, _, rest = done.stdout.partition(b"\n")
        told = json.loads(line)
        found = unpacked(rest, told["sizes"])
    except (ValueError, KeyError, TypeError):
        tail = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise _unreadable(f"taking it apart failed: {tail[:200]}") from None
    if "not_localisable" in told:
        raise NotLocalisableError(told["not_localisable"])
    if "error" in told:
        raise _unreadable(told["error"])
    return told["answer"], found


def unpacked(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """What was joined, apart again. Raises ValueError unless the sizes fit."""
    if sum(sizes) != len(data) or min(sizes, default=0) < 0:
        raise ValueError("sizes do not fit")
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _graph(told: Any) -> Graph:
    operators = tuple(
        Operator(o["kind"], o["name"], tuple(o["inputs"]), tuple(o["outputs"]))
        for o in told["operators"]
    )
    lattices = {name: Lattice(**lattice) for name, lattice in told["lattices"].items()}
    return Graph(tuple(told["inputs"]), tuple(told["outputs"]), operators, lattices)


def _pieces(told: Any, models: Sequence[bytes]) -> list[Piece]:
    return [
        Piece(model, tuple(piece["inputs"]), tuple(piece["outputs"]))
        for piece, model in zip(told, models, strict=True)
    ]


def _unreadable(what: str) -> InputError:
    return InputError("E-MODEL-UNREADABLE", what)
