"""What of a run is out, for those who wait for it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.store.records import PackInfo


def outstanding(out: Sequence[PackInfo]) -> str:
    """The archives that are out, in words."""
    count: dict[str, int] = {}
    for info in out:
        count[info.device] = count.get(info.device, 0) + len(info.out)
    told = [f"{counted(n)} packed for {unit}" for unit, n in count.items()]
    return f"{', '.join(told)}, not ingested yet"


def counted(cells: int) -> str:
    return f"{cells} cell{'' if cells == 1 else 's'}"
