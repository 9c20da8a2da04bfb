"""What is done to a device or to the order of its inputs while a cell runs."""

from orchestrator.conditions import kinds
from orchestrator.conditions.condition import CLEAN, Condition, ConditionError, Draw, parse

__all__ = ["CLEAN", "Condition", "ConditionError", "Draw", "kinds", "parse"]
