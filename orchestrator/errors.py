"""Every failure a user can meet: one base class, an exit code per kind, a stable ID per cause.

Exit codes (all commands): 0 pass, 1 the model failed a gate, 2 usage or bad input file,
3 infrastructure error, 4 timed out, 5 inconclusive or not covered, 130 interrupted.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar


class Exit(IntEnum):
    PASS = 0
    FAIL = 1
    USAGE = 2
    INFRA = 3
    TIMEOUT = 4
    INCONCLUSIVE = 5
    INTERRUPTED = 130


class AssayError(Exception):
    """What went wrong, where, and how to fix it, on one line.

    ``id`` is stable across releases (``E-SSH-HOSTKEY``) and listed in docs/errors.md. ``also``:
    what else is wrong with the same file, each a line of its own.
    """

    exit_code: ClassVar[Exit] = Exit.INFRA
    also: tuple[AssayError, ...] = ()

    def __init__(
        self, id: str, what: str, *, where: str | None = None, fix: str | None = None
    ) -> None:
        self.id, self.what, self.where, self.fix = id, what, where, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        fix = f" ({self.fix})" if self.fix else ""
        return " ".join(f"{place}{self.what}{fix} [{self.id}]".split())

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only fields and Ray's pickling of exceptions: rebuild from the same parts.
        return _rebuild, (type(self), self.id, self.what, self.where, self.fix, self.__dict__)


def _rebuild(
    cls: type[AssayError],
    id: str,
    what: str,
    where: str | None,
    fix: str | None,
    state: dict[str, Any],
) -> AssayError:
    error = cls(id, what, where=where, fix=fix)
    error.__dict__.update(state)
    return error


class InputError(AssayError):
    """A file or argument the user gave is wrong."""

    exit_code = Exit.USAGE


class ModelError(AssayError):
    """The model itself cannot be loaded or run by this runtime: not the farm's fault."""

    exit_code = Exit.FAIL


class InfraError(AssayError):
    """The farm, a device or a link failed; says nothing about the model.

    ``retryable`` tells the retry policy whether another attempt can help: a dropped link can,
    a changed host key cannot.
    """

    exit_code = Exit.INFRA

    def __init__(
        self,
        id: str,
        what: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        retryable: bool = True,
    ) -> None:
        super().__init__(id, what, where=where, fix=fix)
        self.retryable = retryable


class DamageError(InfraError):
    """Something kept is missing, not as it was written, or not of its form.

    It costs itself only: a reader of many leaves this one out and names it.
    """

    def __init__(
        self, id: str, what: str, *, where: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(id, what, where=where, fix=fix, retryable=False)


class DeadlineError(InfraError):
    """A deadline passed (queue, cell, silence, or one transport call)."""

    exit_code = Exit.TIMEOUT


class NotAvailableError(AssayError):
    """The device does not offer what the cell asks for (a runtime, a delegate): not covered."""

    exit_code = Exit.INCONCLUSIVE
