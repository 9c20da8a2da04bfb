"""A pair's cause once more, with what looking into the model on both devices adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.analysis.explain import Explainer
from orchestrator.analysis.localise import localise
from orchestrator.diagnosis.evidence import Guilty
from orchestrator.diagnosis.result import Found
from orchestrator.errors import AssayError
from orchestrator.store.records import Json


def located(root: Path, explainer: Explainer, pair: Mapping[str, Any]) -> Json:
    """A pair as `Explainer.explain` gives it, and the same with what its layers show.

    ``layers``: the document of `assay layers`, or why there is none; None where nothing differs.
    Operators that differ on equal inputs are evidence.
    """
    if pair["mechanism"] == "identical":
        return {**pair, "layers": None}
    file = (pair["model"], pair["file"], pair["inputs"])
    try:
        found = localise(
            root, explainer.run, pair["a"], pair["b"], model=f"{file[0]}.{file[1]}", most=8
        )
    except AssayError as error:
        return {**pair, "layers": {"error": error.id, "what": str(error)}}
    seen = found.found
    again = explainer.explain(
        file, pair["a"], pair["b"], guilty=guilty(seen), plan_matters=seen.plan_matters
    )
    return {**again, "layers": found.to_json()}


def guilty(found: Found) -> tuple[Guilty, ...]:
    """The operators that differ on equal inputs, by kind."""
    kinds: dict[str, list[int | None]] = {}
    for operator in found.operators:
        if operator.guilty and operator.local is not None:
            kinds.setdefault(operator.kind, []).append(operator.local.max_lsb)
    return tuple(
        Guilty(kind, len(steps), max((s for s in steps if s is not None), default=None))
        for kind, steps in kinds.items()
    )
