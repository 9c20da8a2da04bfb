"""Which operators of a TFLite graph delegates took over, and which XNNPACK should have. Pure.

``operators`` as the interpreter's ``_get_ops_details`` lists them: op_name, inputs, outputs.
"""

from __future__ import annotations

import collections
from typing import Any, Dict, List, Mapping, Sequence, Set

_WEIGHTED = frozenset(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"))
"""Operators with constant weights as second input, which every XNNPACK build takes in float32."""
_PAIRED = frozenset(("ADD", "MUL"))
"""The same of two computed inputs. Quantised, it takes them only where their scales are close."""


def delegated(operators: List[Dict[str, Any]]) -> Set[int]:
    """Positions of the operators that delegate nodes replaced.

    The list keeps replaced operators, and does not say which they are: walk back from each
    delegate's outputs until its inputs.
    """
    producer: Dict[int, int] = {}
    for position, item in enumerate(operators):
        if not is_delegate(item):
            producer.update((int(tensor), position) for tensor in item["outputs"])
    taken: Set[int] = set()
    for item in operators:
        if not is_delegate(item):
            continue
        given = {int(tensor) for tensor in item["inputs"]}
        waiting = collections.deque(int(tensor) for tensor in item["outputs"])
        while waiting:
            source = producer.get(waiting.popleft())
            if source is not None and source not in taken:
                taken.add(source)
                sources = (int(tensor) for tensor in operators[source]["inputs"])
                waiting.extend(tensor for tensor in sources if tensor not in given)
    return taken


def is_delegate(operator: Dict[str, Any]) -> bool:
    return "delegate" in str(operator["op_name"]).lower()


def left_out(
    operators: Sequence[Mapping[str, Any]],
    taken: Set[int],
    kinds: Mapping[int, str],
    fetch: Sequence[int],
    quantised: bool,
) -> List[str]:
    """Names, sorted, of operators that the default kernels hand to XNNPACK and that it has not.

    ``taken``: as of `delegated`. ``kinds``: tensor -> dtype. ``fetch``: the graph's outputs.
    ``quantised``: whether int8 and uint8 are handed over too. Where some were taken, only what is
    taken whatever its parameters counts.
    """
    made = {int(t) for item in operators for t in item["outputs"]}
    # A delegate drops operators that lead nowhere: not taken, and nothing is lost.
    used = {int(t) for item in operators for t in item["inputs"]}.union(fetch)
    found = set()
    for position, item in enumerate(operators):
        name = str(item["op_name"])
        if position in taken or name not in _WEIGHTED | _PAIRED:
            continue
        output, second = int(item["outputs"][0]), int(item["inputs"][1])
        if output not in used or (name in _WEIGHTED and second in made):
            continue
        if name in _WEIGHTED and kinds.get(second) != kinds[output]:
            # Float activations, quantised weights: which of these are taken differs by version.
            expected = quantised and not taken
        elif kinds[output] == "float32":
            expected = True
        else:
            expected = kinds[output] in ("int8", "uint8") and quantised
            expected = expected and (name in _WEIGHTED or not taken)
        if expected:
            found.add(name)
    return sorted(found)
