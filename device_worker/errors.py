"""Failures the worker tells its coordinator, with the blame already settled.

``kind`` is one of wire.py's: ``model_error`` (the model's own fault), ``infra_error`` (device, link
or farm), ``not_available`` (the device does not offer what was asked), ``stale`` (lease lost).
"""

from __future__ import annotations

import contextlib
import errno
from typing import Any, Dict, Iterator, Optional

EXIT_STALE = 75
EXIT_COORDINATOR_GONE = 69
EXIT_REFUSED = 70

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LONGEST = 500


class WorkerError(Exception):
    """One failure: ``code`` is stable, ``what`` and ``mend`` are single lines."""

    def __init__(self, kind: str, code: str, what: str, mend: str = "") -> None:
        self.kind, self.code, self.what, self.mend = kind, code, one_line(what), mend
        super().__init__("%s [%s]" % (self.what, code))

    def message(self, request: Optional[object] = None) -> Dict[str, Any]:
        """The ``error`` message that answers ``request`` (None: not asked for)."""
        fields = {"type": "error", "kind": self.kind, "code": self.code}
        texts = {"what": self.what, "mend": self.mend}
        return {**fields, **texts} if request is None else {**fields, **texts, "id": request}


def one_line(text: str) -> str:
    """The first line of ``text`` that says something, bounded: runtimes print whole pages."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return next((line for line in lines if line), "no message")[:_LONGEST]


@contextlib.contextmanager
def storage(what: str) -> Iterator[None]:
    """Report OSErrors of the device's storage while doing ``what``.

    Raises WorkerError E-DISK-FULL or E-WORKER-IO (both infra_error).
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise WorkerError(
                "infra_error",
                "E-DISK-FULL",
                "no space left on the device while %s" % what,
                "free space on the device, or lower its cache_limit in the inventory",
            ) from error
        raise WorkerError("infra_error", "E-WORKER-IO", "%s failed: %s" % (what, error)) from error
