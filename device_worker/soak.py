"""Soaking: heat a device with the model itself, keep it hot, and compare every output."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Callable, List, Optional, Sequence

from device_worker.guard import Guard
from device_worker.wire import Soak, Soaked

_REPORTED = 20
_PATIENCE_S = 10.0
"""A device that names no temperature for so long will not: heating on would be heating blindly."""

Infer = Callable[[int], bytes]
"""Runs one sample; the digest of its outputs."""


def run(
    soak: Soak,
    infer: Infer,
    expected: Sequence[bytes],
    guard: Guard,
    tell: Callable[[int, int], None],
) -> Soaked:
    """Infer until the target is reached or ``heat_s`` passed, then for ``hold_s`` more.

    ``expected``: the first pass's digest of each sample. ``tell``: whole seconds done, of how
    many at most. Raises what ``guard`` raises.
    """
    clock = time.monotonic
    begin, count, mismatches = clock(), 0, 0
    seen = begin
    first: List[List[int]] = []
    total = int(soak.heat_s + soak.hold_s)

    def once() -> None:
        nonlocal count, mismatches
        turn, sample = divmod(count, len(expected))
        if infer(sample) != expected[sample]:
            mismatches += 1
            if len(first) < _REPORTED:
                first.append([sample, turn + 1])
        count += 1
        guard.check()
        tell(int(clock() - begin), total)

    def hot() -> bool:
        return guard.celsius is not None and guard.celsius >= soak.target_c

    def blind() -> bool:
        nonlocal seen
        seen = clock() if guard.celsius is not None else seen
        return clock() - seen >= _PATIENCE_S

    while not hot() and clock() - begin < soak.heat_s and not blind():
        once()
    reached, heat_s = hot(), clock() - begin
    while clock() - begin - heat_s < soak.hold_s:
        once()
    return Soaked(
        target_c=soak.target_c,
        reached=reached,
        heat_s=round(heat_s, 3),
        hold_s=round(clock() - begin - heat_s, 3),
        inferences=count,
        mismatches=mismatches,
        first=first,
        max_c=guard.max_c,
    )


def shown(soaked: Soaked, celsius: Sequence[Optional[float]]) -> Soaked:
    """The soak by the temperatures that may be believed now that all are known.

    A zone that never moved may have seemed hot, or the only one there was.
    """
    hottest = max((value for value in celsius if value is not None), default=None)
    if hottest is not None and hottest >= soaked.target_c:
        return soaked
    return replace(soaked, reached=False, max_c=hottest)


def notes(soaked: Soaked) -> List[str]:
    """Why a soak does not count as one."""
    if soaked.reached:
        return []
    if soaked.max_c is None:
        return ["soak: temperature unknown: cannot be shown to reach %g °C" % soaked.target_c]
    return [
        "soak: reached %g °C of %g °C in %.0f s" % (soaked.max_c, soaked.target_c, soaked.heat_s)
    ]
