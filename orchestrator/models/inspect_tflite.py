"""A TFLite file's inputs, outputs and operators, and what of it an Edge TPU takes.

Read from the flatbuffer itself, by no runtime: runtimes differ in which files they refuse, and
whether one can run the file is found out on the device.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from orchestrator.models.inspect import EDGETPU_OP, TensorInfo, code_range

MOVES = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"})
"""Operators that rearrange elements and change no value."""
PRODUCTS = {
    "CONV_2D": schema.Conv2DOptions,
    "DEPTHWISE_CONV_2D": schema.DepthwiseConv2DOptions,
    "FULLY_CONNECTED": schema.FullyConnectedOptions,
}
CLAMPS = (schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.RELU6)
"""Fused activations that leave nothing below zero."""
_IDENTIFIER = b"TFL3"


def read_tflite(path: Path) -> dict[str, Any]:
    """Raises ValueError for another kind of file; whatever flatbuffers raises on a damaged one."""
    data = path.read_bytes()
    if data[4:8] != _IDENTIFIER:
        raise ValueError("no TFLite flatbuffer")
    model = schema.Model.GetRootAs(data, 0)
    graphs = [_there(model.Subgraphs(i)) for i in range(model.SubgraphsLength())]
    if not graphs:
        raise ValueError("no graph in it")
    names = operator_names(model)
    operators = [(name, op) for graph in graphs for name, op in _operators(graph, names)]
    _walk(model, graphs, operators)
    main = graphs[0]
    tensors = [_there(main.Tensors(i)) for i in range(main.TensorsLength())]
    producer = {
        int(output): (name, op)
        for name, op in _operators(main, names)
        for output in _indices(op, "Outputs")
    }
    answer = {
        "format": "tflite",
        "inputs": [asdict(_info(tensors[i])) for i in _indices(main, "Inputs")],
        "outputs": [asdict(_output(i, tensors, producer)) for i in _indices(main, "Outputs")],
        "operators": Counter(name for name, _ in operators),
        "quantised": sum(bool(_scales(t)) for t in tensors),
        "families": families(operators, tensors) if len(graphs) == 1 else {},
    }
    return answer | _signatures(model) | {"edgetpu_bytes": _executable_bytes(operators)}


def _signatures(model: Any) -> dict[str, Any]:
    """``signature``: of the main graph, None without one; ``unmeasured``: of the other graphs."""
    found: dict[str, int] = {}
    for i in range(model.SignatureDefsLength()):
        named = _there(model.SignatureDefs(i))
        found[(named.SignatureKey() or b"").decode(errors="replace")] = named.SubgraphIndex()
    main = [name for name, graph in found.items() if graph == 0]
    others = sorted(name for name, graph in found.items() if graph != 0)
    return {"signature": main[0] if main else None, "unmeasured": others}


def _walk(model: Any, graphs: list[Any], operators: list[tuple[str, Any]]) -> None:
    """Follow every offset once, so that a truncated file fails here and not on a device."""
    for i in range(model.BuffersLength()):
        _there(model.Buffers(i)).DataAsNumpy()
    for graph in graphs:
        count = graph.TensorsLength()
        for i in range(count):
            tensor = _there(graph.Tensors(i))
            _info(tensor)
            if tensor.Buffer() and tensor.Buffer() >= model.BuffersLength():  # 0 means none
                raise ValueError(f"tensor {i} has no buffer")
        for which in ("Inputs", "Outputs"):
            if any(not 0 <= i < count for i in _indices(graph, which)):
                raise ValueError(f"one of its {which.lower()} is no tensor")
    for _, op in operators:
        _indices(op, "Inputs")
        _indices(op, "Outputs")


def _executable_bytes(operators: list[tuple[str, Any]]) -> int:
    """Bytes that the compiler made for the Edge TPU."""
    return sum(op.CustomOptionsLength() for name, op in operators if name == EDGETPU_OP)


def operator_names(model: Any) -> list[str]:
    """The kind of each operator code: a built-in's name, or what a custom one calls itself."""
    known = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    found = []
    for i in range(model.OperatorCodesLength()):
        code = _there(model.OperatorCodes(i))
        # Files of before there were 127 of them say it in the older field only.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        custom = code.CustomCode()
        if number == schema.BuiltinOperator.CUSTOM:
            found.append((custom or b"").decode(errors="replace") or "CUSTOM")
        else:
            found.append(known.get(number, f"operator {number}"))
    return found


def _operators(graph: Any, names: list[str]) -> Iterator[tuple[str, Any]]:
    for i in range(graph.OperatorsLength()):
        op = _there(graph.Operators(i))
        yield names[op.OpcodeIndex()], op


def _output(index: int, tensors: list[Any], producer: dict[int, tuple[str, Any]]) -> TensorInfo:
    """A float output's lattice is that of the tensor its DEQUANTIZE reads, moves aside."""
    info = _info(tensors[index])
    name, op = producer.get(index, ("", None))
    for _ in range(len(producer)):  # a damaged graph may be a circle
        if name not in MOVES:
            break
        name, op = producer.get(_indices(op, "Inputs")[0], ("", None))
    return _scaled(info, tensors[_indices(op, "Inputs")[0]]) if name == "DEQUANTIZE" else info


def families(operators: list[tuple[str, Any]], tensors: list[Any]) -> dict[str, tuple[int, int]]:
    """As ``ModelInfo.families``, of the operators of one graph.

    Operators whose family cannot be told are left out.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, op in operators:
        if name not in PRODUCTS:
            continue
        read, table = _indices(op, "Inputs"), op.BuiltinOptions()
        x, weights = (tensors[i] for i in read[:2])
        dtype, shapes = _dtype(weights), (_shape(x), _shape(weights))
        if dtype not in ("int8", "uint8") or _dtype(x) != dtype or not all(shapes) or not table:
            continue
        if shapes[1][-1 if name == "DEPTHWISE_CONV_2D" else 0] == 1:
            continue  # one scale is a scale per channel as well
        options = PRODUCTS[name]()
        options.Init(table.Bytes, table.Pos)
        grain = "channel" if len(_scales(weights)) > 1 else "tensor"
        size = _size(name, *shapes)
        family = f"{name} {dtype} per-{grain}{size}"
        n, clamped = found.get(family, (0, 0))
        found[family] = n + 1, clamped + (options.FusedActivationFunction() in CLAMPS)
    return found


def _size(name: str, x: tuple[int, ...], weights: tuple[int, ...]) -> str:
    """For what sizes runtimes have kernels of their own."""
    if name == "FULLY_CONNECTED":
        return " batch 1" if abs(math.prod(x)) == weights[-1] else ""
    if name == "DEPTHWISE_CONV_2D":
        return " tail" if x[-1] % 8 else ""
    return ""


def _info(tensor: Any) -> TensorInfo:
    signature, shape = tensor.ShapeSignatureAsNumpy(), tensor.ShapeAsNumpy()
    axes = (
        shape if tensor.ShapeSignatureIsNone() or not tensor.ShapeSignatureLength() else signature
    )
    name = (tensor.Name() or b"").decode(errors="replace")
    axes = () if tensor.ShapeIsNone() else tuple(int(n) for n in axes)
    return _scaled(TensorInfo(name, _dtype(tensor), axes), tensor)


def _scaled(info: TensorInfo, tensor: Any) -> TensorInfo:
    """``info`` with the per-tensor quantisation of ``tensor``, where that has one."""
    scales, dtype = _scales(tensor), _dtype(tensor)
    codes = code_range(dtype)
    if len(scales) != 1 or not scales[0] or codes is None:
        return info
    points = tensor.Quantization().ZeroPointAsNumpy() if _zero_points(tensor) else [0]
    return replace(
        info,
        scale=float(scales[0]),
        zero_point=int(points[0]),
        code_min=codes[0],
        code_max=codes[1],
    )


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.ShapeIsNone() else tuple(int(n) for n in tensor.ShapeAsNumpy())


def _scales(tensor: Any) -> list[float]:
    found = tensor.Quantization()
    return [] if found is None or found.ScaleIsNone() else [float(s) for s in found.ScaleAsNumpy()]


def _zero_points(tensor: Any) -> int:
    return int(tensor.Quantization().ZeroPointLength())


def _dtype(tensor: Any) -> str:
    kinds = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    return str(kinds.get(tensor.Type(), f"type {tensor.Type()}"))


def _indices(table: Any, which: str) -> list[int]:
    return (
        [int(i) for i in getattr(table, f"{which}AsNumpy")()]
        if getattr(table, f"{which}Length")()
        else []
    )


def _there(value: Any) -> Any:
    if value is None:
        raise ValueError("a part is missing")
    return value
