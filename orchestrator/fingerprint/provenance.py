"""Stored fingerprints, each for what it was taken on and for nothing else. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.fingerprint.hypothesis import configuration
from orchestrator.matrix.key import Key, key_of, stale
from orchestrator.store.records import FingerprintInfo
from orchestrator.variance.factors import Factors


def taken_on(fingerprint: FingerprintInfo) -> Key:
    """Of what a fingerprint speaks: answers of this key."""
    return key_of(fingerprint.document.get("taken_on") or {})


class Prints:
    """``fingerprints``: of each device and configuration the newest first."""

    def __init__(self, fingerprints: Iterable[FingerprintInfo]) -> None:
        self._taken: dict[tuple[str, str], list[FingerprintInfo]] = {}
        for each in fingerprints:
            self._taken.setdefault((each.device, each.configuration), []).append(each)

    def __iter__(self) -> Iterator[FingerprintInfo]:
        """The newest of each device and configuration."""
        return (taken[0] for taken in self._taken.values())

    def newest(self, device: str, configuration: str) -> FingerprintInfo | None:
        return next(iter(self._taken.get((device, configuration), ())), None)

    def speaking(self, factors: Factors) -> FingerprintInfo | None:
        """The newest that speaks for an answer; None where what computed it was never asked."""
        return next((f for f in self._of(factors) if taken_on(f) == factors.key), None)

    def stale(self, factors: Factors) -> str | None:
        """Why the newest fingerprint does not speak for an answer, and the fix.

        None where it does or there is none.
        """
        newest = next(iter(self._of(factors)), None)
        return stale(factors.unit, factors.key, taken_on(newest)) if newest else None

    def _of(self, factors: Factors) -> list[FingerprintInfo]:
        name = configuration(factors.runtime, factors.kernels)
        return self._taken.get((factors.unit, name), [])
