"""A finished attempt as a hub delivers it: plain data, standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import (
    AssayError,
    DeadlineError,
    InfraError,
    ModelError,
    NotAvailableError,
)
from orchestrator.queue.fences import Refusal, RefusedError


@dataclass(frozen=True)
class Failure:
    """An error in the form that is stored: outcome, stable ID, one line, and may it be retried?

    ``refusal``: why the device's fence did not let the lease in, where that is it.
    """

    outcome: str
    id: str
    text: str
    retryable: bool
    refusal: Refusal | None = None

    @classmethod
    def of(cls, error: AssayError) -> Failure:
        match error:
            case ModelError():
                return cls("model_error", error.id, str(error), False)
            case NotAvailableError():
                return cls("not_available", error.id, str(error), False)
            case DeadlineError(id="E-CELL-TIMEOUT" | "E-SILENCE"):
                return cls("timeout", error.id, str(error), False)
            case RefusedError():
                return cls("infra_error", error.id, str(error), error.retryable, error.refusal)
            case InfraError():
                return cls("infra_error", error.id, str(error), error.retryable)
            case _:
                return cls("infra_error", error.id, str(error), False)


_SHOWN = 500


def shown(text: str) -> str:
    """A device's text as it may stand in a line of ours: bounded, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text[:_SHOWN])


def unexpected(error: BaseException, where: str) -> InfraError:
    """An exception that nobody expected, as the trouble of the one attempt that it struck."""
    what = shown(str(error)) or "no message"
    return InfraError(
        "E-HUB-ERROR",
        f"carrying out the attempt failed: {type(error).__name__}: {what}",
        where=where,
        fix="report it with this line; other cells go on, and this one is tried again",
    )


@dataclass(frozen=True)
class Finished:
    """A finished attempt. ``files``: name -> bytes, "output-<i>" and JobResult.files' roles.

    ``hub``: host that carried it out, as ``name@host`` where the inventory names it; None: lost.
    """

    attempt: str
    device: str
    token: int
    started_unix: float
    ended_unix: float
    failure: Failure | None = None
    result: dict[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    bytes_pushed: int = 0
    timing_notes: tuple[str, ...] = ()
    hub: str | None = None

    @property
    def outcome(self) -> str:
        return self.failure.outcome if self.failure else "ok"
