"""Finished attempts on the hub's disk until a coordinator has committed them.

An attempt is redelivered by its ID, so that delivering twice counts once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from device_worker.cache import open_plain
from orchestrator.errors import InfraError

_ATTEMPT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,100}")


class Spool:
    """One file per attempt, of the bytes that `results.encoding` makes; the rename makes it whole.

    Not synced to disk: it outlives a killed process, and what a power cut takes is run again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, attempt: str, data: bytes) -> None:
        path = self._path(attempt)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(data)
        part.replace(path)

    def pending(self) -> list[str]:
        return sorted(p.stem for p in self._folder.glob("*.attempt") if _ATTEMPT.fullmatch(p.stem))

    def load(self, attempt: str) -> bytes:
        """Whoever decodes them checks them. Raises InfraError E-HUB-SPOOL: not there (any more)."""
        try:
            with os.fdopen(open_plain(str(self._path(attempt))), "rb") as file:
                return file.read()
        except OSError as error:
            raise InfraError(
                "E-HUB-SPOOL", f"no attempt {attempt} to redeliver: {error}", retryable=False
            ) from error

    def forget(self, attempts: Iterable[str]) -> None:
        for attempt in attempts:
            if _ATTEMPT.fullmatch(attempt):  # nothing is kept under any other name
                self._path(attempt).unlink(missing_ok=True)

    def _path(self, attempt: str) -> Path:
        if not _ATTEMPT.fullmatch(attempt):
            raise InfraError("E-HUB-SPOOL", f"{attempt[:80]!r} is no attempt", retryable=False)
        return self._folder / f"{attempt}.attempt"
