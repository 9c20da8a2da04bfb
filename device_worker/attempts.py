"""Where an attempt's files lie on the device."""

from __future__ import annotations

import os
import re

from device_worker.errors import WorkerError

_ATTEMPT = re.compile(r"[A-Za-z0-9._-]+")


def folder(root: str, attempt: str) -> str:
    """``root/out/<attempt>``. Raises WorkerError E-ATTEMPT-ID for a name that is no plain name."""
    if not _ATTEMPT.fullmatch(attempt) or attempt in (".", ".."):
        raise WorkerError("infra_error", "E-ATTEMPT-ID", "bad attempt id %r" % attempt[:80])
    return os.path.join(root, "out", attempt)
