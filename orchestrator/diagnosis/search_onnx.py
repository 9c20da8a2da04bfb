"""ONNX Runtime: the optimised graphs of two devices, then a's, tapped, on both.

Pure but for the devices it is given. Two questions are kept apart. Do the devices run different
graphs of the file, and does that change the answer: b under a's plan against b under its own. Do
they compute differently: a's plan on both.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.diagnosis.pair import Alone, Pair, Side, Trial, Tried, alone, must
from orchestrator.diagnosis.result import EQUAL, OPERATOR, PLAN, Found, OperatorFound
from orchestrator.models import surgery
from orchestrator.models.graph import (
    Array,
    Difference,
    NotLocalisableError,
    PlanDifference,
    difference,
    same_bits,
)

Outputs = tuple[Array, ...]


def localise(model: bytes, inputs: Sequence[Array], pair: Pair) -> Found:
    """``inputs`` [samples, *shape] in the model's order.

    Raises NotLocalisableError; InputError E-MODEL-UNREADABLE; what a device raises.
    """
    given = tuple(inputs)
    ((on_a,), (on_b,)) = pair.run([Trial("whole", model, given, graph=True)])
    graph_a, graph_b = saved_graph(on_a, pair.a), saved_graph(on_b, pair.b)
    (tapped,) = surgery.tap_optimised(graph_a)
    ran = pair.run([Trial("tapped", tapped.model, given)], optimise=False)
    on_both = [must(ran[0][0], pair.a, "its own plan with all tensors out"), ran[1][0]]
    reproduced(on_both[0], on_a, pair.a)
    plan: PlanDifference | None = None
    matters: bool | None = None
    if on_a.plan != on_b.plan:
        plan = surgery.compare_optimised(graph_a, graph_b)
        reproduced(_as_it_is(graph_b, given, pair.b), on_b, pair.b)
        if on_both[1].error is None:
            matters = not _equal(on_both[1].outputs, on_b.outputs)
        else:
            why = f"{pair.b.name} cannot run the plan of {pair.a.name}: {on_both[1].error}"
            return Found(PLAN, plan=plan, reason=why)
    else:
        reproduced(must(on_both[1], pair.b, "its plan with all tensors out"), on_b, pair.b)
    tensors = [dict(zip(tapped.outputs, one.outputs, strict=True)) for one in on_both]
    operators = _operators(graph_a, dict(zip(tapped.inputs, given, strict=True)), tensors, pair)
    differs = any(o.guilty or (o.accumulated and o.accumulated.different) for o in operators)
    answer = PLAN if matters else OPERATOR if differs else EQUAL
    return Found(answer, operators, plan, matters)


def _operators(
    graph: bytes, given: dict[str, Array], tensors: list[dict[str, Array]], pair: Pair
) -> tuple[OperatorFound, ...]:
    whole = given | tensors[0]
    forms = {name: (str(x.dtype), x.shape[1:]) for name, x in whole.items()}
    pieces = surgery.alone_optimised(graph, forms)
    found = []
    by_itself = alone(pair, pieces, whole, optimise=False)
    for i, operator in enumerate(surgery.read_optimised(graph).operators):
        sides = [tuple(side[t] for t in operator.outputs if t in side) for side in tensors]
        accumulated: Difference | None = difference(*sides) if sides[0] else None
        one = by_itself[i]
        if not operator.inputs:  # of constants alone: nothing before it can have differed
            one = Alone(accumulated, None)
        found.append(
            OperatorFound(i, operator.kind, operator.name, accumulated, one.local, one.as_in_model)
        )
    return tuple(found)


def saved_graph(tried: Tried, side: Side) -> bytes:
    """Raises NotLocalisableError."""
    if must(tried, side, "the whole model").graph is None:
        raise NotLocalisableError(f"{side.name} compiles part of it, which cannot be looked into")
    assert tried.graph is not None
    return tried.graph


def _as_it_is(graph: bytes, given: Outputs, side: Side) -> Tried:
    (tried,) = side.run([Trial("as it is", graph, given)], optimise=False)
    return must(tried, side, "its own plan")


def reproduced(tried: Tried, whole: Tried, side: Side) -> None:
    """Raises NotLocalisableError unless the graph, run as it is, gives the ordinary answer."""
    if not _equal(tried.outputs, whole.outputs):
        raise NotLocalisableError(f"the saved plan of {side.name} does not give its usual answer")


def _equal(mine: Outputs, whole: Outputs) -> bool:
    """Whether ``mine`` begins with the outputs ``whole``, bit for bit: taps come after them."""
    return all(same_bits(x, y) for x, y in zip(mine[: len(whole)], whole, strict=True))
