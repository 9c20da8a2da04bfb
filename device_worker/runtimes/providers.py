"""ONNX Runtime's execution providers: what is asked for, what is given, who runs which operator."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence, Set, Tuple

from device_worker.runtimes import engines
from device_worker.wire import RuntimeSpec

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Chain:
    """``named``: what was asked for, in order.

    ``given``: of these and the CPU, which always comes last, the offered ones, with their options.
    ``engines``: the folder of the engines that a provider builds, "" when none builds any.
    """

    named: List[str]
    given: List[Tuple[str, Dict[str, str]]] = field(default_factory=list)
    engines: str = ""


def chain(spec: RuntimeSpec, offered: Sequence[str], model: str, version: str) -> Chain:
    """``version``: of ONNX Runtime; ``model``: path of the file in the cache."""
    given: List[Tuple[str, Dict[str, str]]] = []
    where = ""
    for name in dict.fromkeys([*spec.providers, CPU]):
        options = dict(spec.provider_options.get(name, {}))
        if name == engines.TENSORRT and name in offered:
            own = engines.folder(model, name, options, version)
            options = engines.defaults(options, own)
            where = options["trt_engine_cache_path"]
        if name in offered:
            given.append((name, options))
    return Chain(list(dict.fromkeys(spec.providers)), given, where)


def fallbacks(named: Sequence[str], session: Sequence[str], nodes: Dict[str, int]) -> List[str]:
    """One line for each silent change.

    A named provider that is not there, or operators that went to one that is not named.
    ``session``: the providers it says it has; ``nodes``: provider -> operators given to it.
    """
    first, told = named[0], ", ".join(session)
    if first not in session:
        return ["asked for %s, session has %s" % (first, told)]
    lines = []
    lost = [name for name in named if name not in session]
    if lost:
        lines.append("asked for %s as well, session has %s" % (", ".join(lost), told))
    if not nodes.get(first):
        lines.append("asked for %s, it was given no operator" % first)
        return lines
    others = [(name, count) for name, count in sorted(nodes.items()) if name not in named]
    lines += [
        "asked for %s, %d operators run on %s" % (", ".join(named), count, name)
        for name, count in others
        if count
    ]
    return lines


def assigned(session: Any) -> Dict[str, int]:
    """Provider -> operators of the unoptimised graph; empty where this release cannot tell."""
    nodes: Dict[str, int] = {}
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    for part in ask() if ask else ():
        nodes[part.ep_name] = nodes.get(part.ep_name, 0) + len(part.get_nodes())
    return nodes


def profiled(text: str) -> Dict[str, int]:
    """Provider -> operators, from the profile of a run: for releases without the above.

    A part of the graph that a provider compiled counts as one. Raises ValueError for no profile.
    """
    seen: Set[Tuple[str, str]] = set()
    for event in json.loads(text):
        if not isinstance(event, dict) or event.get("cat") != "Node":
            continue
        name, about = str(event.get("name", "")), event.get("args") or {}
        if name.endswith("_kernel_time") and about.get("provider"):
            seen.add((str(about["provider"]), name))
    nodes: Dict[str, int] = {}
    for provider, _ in sorted(seen):
        nodes[provider] = nodes.get(provider, 0) + 1
    return nodes
