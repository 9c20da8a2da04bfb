"""TFLite models that carry state from one inference to the next, in the two ways files do it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.support.flatfile import Flat

WIDTH = 4


def svdf(path: Path) -> Path:
    """y = what a memory of three steps makes of x: a variable tensor. float32 [1, 4] both."""
    rank, memory = 1, 3
    flat = Flat()
    x = flat.tensor("x", [1, WIDTH])
    feature = flat.constant("feature", np.eye(WIDTH, dtype=np.float32))
    time = flat.constant("time", np.full((WIDTH, memory), 0.5, np.float32))
    state = flat.tensor("state", [1, WIDTH * memory], variable=True)
    y = flat.tensor("y", [1, WIDTH])
    options = schema.SVDFOptionsT()
    options.rank = rank
    flat.op("SVDF", [x, feature, time, -1, state], [y], options)
    return flat.write(path, [x], [y])


def running_sum(path: Path) -> Path:
    """y = x + all x before it: a resource variable that begins at zero. float32 [1, 4] both."""
    flat = Flat()
    x, y = flat.tensor("x", [1, WIDTH]), flat.tensor("y", [1, WIDTH])
    before = flat.tensor("before", [1, WIDTH])
    first = flat.another()
    zero = first.constant("zero", np.zeros((1, WIDTH), np.float32))
    first.op("ASSIGN_VARIABLE", [_handle(first), zero], [], schema.AssignVariableOptionsT())
    first.ends([], [])
    once = schema.CallOnceOptionsT()
    once.initSubgraphIndex = 1
    flat.op("CALL_ONCE", [], [], once)
    handle = _handle(flat)
    flat.op("READ_VARIABLE", [handle], [before], schema.ReadVariableOptionsT())
    flat.op("ADD", [x, before], [y], schema.AddOptionsT())
    flat.op("ASSIGN_VARIABLE", [handle, y], [], schema.AssignVariableOptionsT())
    return flat.write(path, [x], [y])


def _handle(flat: Flat) -> int:
    handle = flat.tensor("sum", [], "RESOURCE")
    options = schema.VarHandleOptionsT()
    options.container, options.sharedName = "", "sum"
    flat.op("VAR_HANDLE", [], [handle], options)
    return handle
