"""What a coordinator tells while it works: the seam at which whoever shows it listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by any thread what the run does. No method raises for what it is told."""

    def start(self, total: int) -> None: ...

    def grow(self, count: int) -> None:
        """So many cells more than it started with."""

    def cell_started(self, id: str, device: str) -> None: ...

    def cell_finished(
        self, id: str, device: str, outcome: str, seconds: float, note: str = ""
    ) -> None:
        """``outcome``: ok, model_error, infra_error, timeout, cancelled or not_available."""

    def cell_waits(
        self, id: str, device: str, outcome: str, seconds: float, note: str = ""
    ) -> None:
        """An attempt ended so that its cell waits for another one."""

    def message(self, text: str) -> None: ...

    def stop(self) -> None: ...


class NullProgress:
    """Shows nothing."""

    def start(self, total: int) -> None:
        pass

    def grow(self, count: int) -> None:
        pass

    def cell_started(self, id: str, device: str) -> None:
        pass

    def cell_finished(
        self, id: str, device: str, outcome: str, seconds: float, note: str = ""
    ) -> None:
        pass

    def cell_waits(
        self, id: str, device: str, outcome: str, seconds: float, note: str = ""
    ) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def stop(self) -> None:
        pass
