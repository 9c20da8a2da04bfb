"""The optimised graph ONNX Runtime really runs, as a stable hash and its operators.

Only the fields needed are read, straight from the protobuf wire format, because devices have no
``onnx`` package. Field numbers: onnx.proto (ModelProto.graph 7; GraphProto.node 1, initializer 5,
sparse_initializer 15; NodeProto.input 1, output 2, op_type 4, attribute 5, domain 7).
"""

from __future__ import annotations

import collections
import hashlib
from dataclasses import dataclass
from typing import Counter, Dict, Iterator, List, Tuple

_GRAPH, _NODE, _INITIALIZERS = 7, 1, (5, 15)
_INPUT, _OUTPUT, _OP_TYPE, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7


@dataclass(frozen=True)
class Plan:
    """``sha256`` covers operators, wiring, attributes and constants, not names of nodes or dates.

    It does not depend on the order in which the graph was written. ``operators``: type -> count.
    """

    sha256: str
    operators: Dict[str, int]


def read_plan(path: str) -> Plan:
    """Read a serialised ModelProto. Raises ValueError when it is not one, OSError."""
    with open(path, "rb") as file:
        return plan_of(file.read())


def plan_of(data: bytes) -> Plan:
    """The same of a ModelProto in memory."""
    model = memoryview(data)
    nodes: List[bytes] = []
    constants: List[bytes] = []
    operators: Counter[str] = collections.Counter()
    for number, graph in _fields(model):
        if number != _GRAPH:
            continue
        for kind, value in _fields(graph):
            if kind == _NODE:
                name, digest = _node(value)
                operators[name] += 1
                nodes.append(digest)
            elif kind in _INITIALIZERS:
                constants.append(hashlib.sha256(value).digest())
    if not nodes:
        raise ValueError("no graph in the optimised model")
    whole = hashlib.sha256()
    for part in (sorted(nodes), sorted(constants)):
        whole.update(len(part).to_bytes(8, "little") + b"".join(part))
    return Plan(whole.hexdigest(), dict(sorted(operators.items())))


def _node(node: memoryview) -> Tuple[str, bytes]:
    parts: Dict[int, List[bytes]] = {
        key: [] for key in (_INPUT, _OUTPUT, _OP_TYPE, _ATTRIBUTE, _DOMAIN)
    }
    for number, value in _fields(node):
        if number in parts:
            parts[number].append(bytes(value))
    parts[_ATTRIBUTE].sort()
    name = b".".join(part for part in (*parts[_DOMAIN], *parts[_OP_TYPE]) if part).decode()
    digest = hashlib.sha256()
    for values in parts.values():
        digest.update(len(values).to_bytes(8, "little"))
        for item in values:
            digest.update(len(item).to_bytes(8, "little") + item)
    return name, digest.digest()


def _fields(message: memoryview) -> Iterator[Tuple[int, memoryview]]:
    """(number, bytes) of each length-delimited field; numbers are skipped."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("truncated protobuf")
            yield number, message[at : at + length]
            at += length
        else:
            raise ValueError("unknown protobuf wire type %d" % kind)


def _varint(message: memoryview, at: int) -> Tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError("truncated protobuf")
