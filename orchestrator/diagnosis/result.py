"""What looking into a model on two devices came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.models.graph import Difference, PlanDifference

OPERATOR, PLAN, EQUAL, NOT_LOCALISABLE = "operator", "plan", "equal", "not-localisable"


@dataclass(frozen=True)
class OperatorFound:
    """One operator on the two devices, ``index`` in the order in which they run.

    ``accumulated``: its output in the whole model, each device on its own; None where it was not
    looked at. ``local``: its output when both devices are given a's tensors to read; None where it
    could not be run alone. ``alone_as_in_model``: whether, on a, it answers alone what it answers
    in the model, bit for bit; if not, ``local`` speaks of another kernel than the model runs.
    """

    index: int
    kind: str
    name: str
    accumulated: Difference | None
    local: Difference | None
    alone_as_in_model: bool | None

    @property
    def guilty(self) -> bool:
        return self.local is not None and self.local.different > 0


@dataclass(frozen=True)
class Found:
    """Where two devices begin to differ.

    ``answer``: "operator" (some compute differently on equal inputs), "plan" (the devices run
    different graphs of the file, and that alone changes the answer), "equal" (no tensor of the
    samples differs) or "not-localisable", with the ``reason``.

    ``operators``: those of the file (TFLite), or of a's optimised graph (ONNX Runtime), run as it
    is on both devices. ``plan``: None where both devices make the same of the file.
    ``plan_matters``: whether b gives another answer under a's plan than under its own; None where
    the plans are equal or b cannot run a's.
    """

    answer: str
    operators: tuple[OperatorFound, ...] = ()
    plan: PlanDifference | None = None
    plan_matters: bool | None = None
    reason: str | None = None

    @property
    def first(self) -> int | None:
        """Index of the first operator whose output differs, each device on its own."""
        return next(
            (o.index for o in self.operators if o.accumulated and o.accumulated.different), None
        )

    @property
    def guilty(self) -> tuple[int, ...]:
        """Indices of the operators that differ on equal inputs."""
        return tuple(o.index for o in self.operators if o.guilty)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        data = asdict(self)
        for told, operator in zip(data["operators"], self.operators, strict=True):
            told["guilty"] = operator.guilty
            for key in ("accumulated", "local"):
                found: Difference | None = getattr(operator, key)
                if found is not None:
                    told[key]["sign"] = found.sign
        return data | {"first": self.first, "guilty": list(self.guilty)}
