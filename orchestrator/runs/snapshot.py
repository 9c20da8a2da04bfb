"""All that a run needs, kept with it: no later command reads the user's files again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import InputError
from orchestrator.matrix.by_class import ByClass
from orchestrator.matrix.frozen import freeze, thaw
from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.model import Matrix
from orchestrator.matrix.plan import cell_id
from orchestrator.matrix.policy import Policy
from orchestrator.runs.staged import Staging

CELL_NAMES = ("slot", "model", "file", "inputs", "condition", "runtime")


@dataclass(frozen=True)
class FrozenRun:
    """A run's plan as it was frozen.

    ``slots``: slot -> names of the units that may take it. ``by_class``: of a run whose equivalence
    classes are each represented by one of their units.
    """

    matrix: Matrix
    inventory: Inventory
    policy: Policy | None
    staging: Staging
    slots: dict[str, tuple[str, ...]]
    by_class: ByClass | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the units that any cell of the run may go to."""
        return tuple(sorted({unit for units in self.slots.values() for unit in units}))

    def class_of(self, slot: str, unit: str) -> str:
        """The device class of a unit, or of the slot where no unit was ever bound."""
        classes = {d.name: d.class_ for d in self.inventory.devices}
        return classes.get(unit, slot.partition("#")[0])

    def names_of(self, id: str) -> dict[str, Any] | None:
        """The names that a cell's ID was made of (`matrix.plan.cell_id`); None for another ID."""
        for slot, model, runtime in product(self.slots, self.matrix.models, self.matrix.runtimes):
            for file, inputs in product(model.files, model.inputs):
                before, after = f"{slot}-{model.name}.{file.name}-{inputs}-", f"-{runtime.name}"
                condition = id.removeprefix(before).removesuffix(after)
                names = (slot, model.name, file.name, inputs, condition, runtime.name)
                if cell_id(*names) == id:
                    return dict(zip(CELL_NAMES, names, strict=True))
        return None

    def dump(self) -> dict[str, Any]:
        data = freeze(self.matrix, self.inventory, self.policy)
        return {
            **data,
            "staging": self.staging.model_dump(mode="json"),
            "slots": {slot: list(units) for slot, units in self.slots.items()},
            "by_class": self.by_class.model_dump(mode="json") if self.by_class else None,
        }


def load_run(data: dict[str, Any]) -> FrozenRun:
    """The inverse of `FrozenRun.dump`. Raises InputError E-FROZEN."""
    thawed = thaw(data)
    try:
        return FrozenRun(
            matrix=thawed.matrix,
            inventory=thawed.inventory,
            policy=None if thawed.policy is None else Policy.model_validate(thawed.policy),
            staging=Staging.model_validate(data["staging"]),
            slots={slot: tuple(units) for slot, units in data["slots"].items()},
            by_class=ByClass.model_validate(data["by_class"]) if data.get("by_class") else None,
        )
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise InputError("E-FROZEN", f"the recorded run is damaged: {error}") from None
