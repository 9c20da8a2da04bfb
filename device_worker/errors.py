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
_SHORT = {
    errno.EAGAIN: "threads or processes",
    errno.EMFILE: "descriptors (ulimit -n)",
    errno.ENFILE: "descriptors (of the whole system)",
    errno.EFBIG: "a file of that size (ulimit -f)",
}
SHORTAGES = (*_FULL, *_SHORT, errno.ENOMEM, errno.EIO, errno.EROFS)
"""What says by itself that the device, not what it was asked, is the trouble."""
_LONGEST = 500


class WorkerError(Exception):
    """One failure: ``code`` is stable, ``what`` and ``fix`` are single lines.

    ``more``: fields that its message has besides, for the coordinator to act on (see wire.py).
    """

    def __init__(
        self,
        kind: str,
        code: str,
        what: str,
        fix: str = "",
        more: Optional[Dict[str, Any]] = None,
    ) -> None:
        self.kind, self.code, self.what, self.fix = kind, code, one_line(what), fix
        self.more = more or {}
        super().__init__("%s [%s]" % (self.what, code))

    def message(self, request: Optional[object] = None) -> Dict[str, Any]:
        """The ``error`` message that answers ``request`` (None: not asked for)."""
        fields = {"type": "error", "kind": self.kind, "code": self.code, **self.more}
        texts = {"what": self.what, "mend": self.fix}
        return {**fields, **texts} if request is None else {**fields, **texts, "id": request}


def one_line(text: str) -> str:
    """The first line of ``text`` that says something, bounded: runtimes print whole pages."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return next((line for line in lines if line), "no message")[:_LONGEST]


def told(error: BaseException) -> str:
    """What an exception says, or its kind where it says nothing."""
    return str(error) or type(error).__name__


def out_of_memory(what: str) -> WorkerError:
    """Memory or address space that the device does not have now."""
    fix = "use fewer samples or a smaller model, or end other programs there"
    return WorkerError("infra_error", "E-WORKER-OOM", what, fix)


def short(what: str) -> WorkerError:
    """Something else that the operating system hands out and did not."""
    fix = "end other programs there, raise the limit, or ask for fewer threads"
    return WorkerError("infra_error", "E-WORKER-SHORT", what, fix)


def from_os(error: OSError, what: str) -> WorkerError:
    """What the operating system refused while doing ``what``, by errno: always infra_error.

    E-DISK-FULL, E-WORKER-OOM, E-WORKER-SHORT, or E-WORKER-IO for anything else.
    """
    if error.errno in _FULL:
        return WorkerError(
            "infra_error",
            "E-DISK-FULL",
            "no space left on the device while %s" % what,
            "free space on the device, or lower its cache_limit in the inventory",
        )
    if error.errno == errno.ENOMEM:
        return out_of_memory("the device refused memory while %s" % what)
    if error.errno in _SHORT:
        return short("the device refused %s while %s" % (_SHORT[error.errno], what))
    return WorkerError("infra_error", "E-WORKER-IO", "%s failed: %s" % (what, error))


@contextlib.contextmanager
def storage(what: str) -> Iterator[None]:
    """Report OSErrors of the device's storage while doing ``what``. Raises as `from_os` says."""
    try:
        yield
    except OSError as error:
        raise from_os(error, what) from error
