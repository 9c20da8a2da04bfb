"""How many samples a spot check needs, and what one without a difference says. Standard library.

Drawing without replacement: of N samples D are different, n are drawn; the probability to draw
none of the D is C(N-D, n) / C(N, n) (hypergeometric; acceptance sampling with acceptance number 0,
as in E. G. Schilling, D. V. Neubauer: Acceptance Sampling in Quality Control).
"""

from __future__ import annotations

from bisect import bisect_left
from math import ceil


def sample_size(total: int, share: float, confidence: float) -> int:
    """The smallest n that meets one of D = ceil(share x total) samples with this probability.

    ``share``, ``confidence`` in (0, 1); at most ``total``.
    """
    different = max(ceil(share * total), 1)
    missed = 1.0
    for n in range(total):
        missed *= max(total - different - n, 0) / (total - n)
        if missed <= 1 - confidence:
            return n + 1
    return total


def at_most(total: int, drawn: int, confidence: float) -> int:
    """Upper bound on D at this one-sided ``confidence`` when none of the ``drawn`` is different."""

    def met(different: int) -> bool:
        missed = 1.0
        for n in range(drawn):
            missed *= max(total - different - n, 0) / (total - n)
        return missed <= 1 - confidence

    return bisect_left(range(1, total + 1), True, key=met)
