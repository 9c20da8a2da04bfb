"""Play the Edge TPU compiler: a file with a source's interface, for the stand-in to run.

What comes out has one `edgetpu-custom-op` from all inputs to all outputs. Its program is a word, no
network: on the stand-in it answers something else than the source does, and on a real Edge TPU it
does not run at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

CUSTOM_OP = "edgetpu-custom-op"
PROGRAM = b"assay stand-in: no program for an Edge TPU"


def compile_model(source: bytes) -> bytes:
    """A .tflite with the inputs and outputs of ``source``, also a .tflite. The same every time."""
    model: Any = schema.ModelT.InitFromPackedBuf(source, 0)
    graph = model.subgraphs[0]
    ends = [*graph.inputs, *graph.outputs]
    graph.tensors = [_bare(graph.tensors[i]) for i in ends]
    graph.inputs = list(range(len(graph.inputs)))
    graph.outputs = list(range(len(graph.inputs), len(ends)))
    op: Any = schema.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = 0, graph.inputs, graph.outputs
    op.customOptions = list(PROGRAM)
    graph.operators = [op]
    code: Any = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = CUSTOM_OP, 1
    model.operatorCodes, model.subgraphs, model.buffers = [code], [graph], [schema.BufferT()]
    model.metadata = model.metadataBuffer = model.signatureDefs = None
    model.description = "stand-in, compiled for no Edge TPU"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def compile_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(compile_model(source.read_bytes()))


def _bare(tensor: Any) -> Any:
    """The tensor without its data."""
    tensor.buffer = 0
    return tensor
