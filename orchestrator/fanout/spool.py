"""Finished attempts on the hub's disk until a coordinator has committed them.

An attempt is redelivered by its ID, so that delivering twice counts once.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.fanout.order import Finished


class Spool:
    """One file per attempt; the rename makes it whole. Written and read by this program only.

    Not synced to disk: it outlives a killed process, and what a power cut takes is run again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, finished: Finished) -> None:
        path = self._path(finished.attempt)
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            pickle.dump(finished, file)
        part.replace(path)

    def pending(self) -> list[str]:
        return sorted(p.stem for p in self._folder.glob("*.attempt"))

    def load(self, attempt: str) -> Finished:
        """Raises InfraError E-HUB-SPOOL: not there (any more), or cut short by a power cut."""
        try:
            with self._path(attempt).open("rb") as file:
                finished = pickle.load(file)
        except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError) as error:
            raise InfraError(
                "E-HUB-SPOOL", f"no attempt {attempt} to redeliver: {error}", retryable=False
            ) from error
        if not isinstance(finished, Finished):
            raise InfraError("E-HUB-SPOOL", f"{attempt} holds no attempt", retryable=False)
        return finished

    def forget(self, attempts: Iterable[str]) -> None:
        for attempt in attempts:
            self._path(attempt).unlink(missing_ok=True)

    def _path(self, attempt: str) -> Path:
        return self._folder / f"{attempt}.attempt"
