"""Raters made by hand: decisions, and hashes that follow from them unless said otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from orchestrator.variance.agreement import Rater
from orchestrator.variance.factors import Factors

PLAIN = Factors(
    core="x86_64 Intel",
    device_class="box",
    unit="box-1",
    system="debian",
    runtime="litert",
    version="2.3.0",
    build="b1",
    threads=1,
    kernels="default",
    reset="on",
    condition="clean",
)


def rater(
    name: str, decisions: Sequence[Any], codes: Sequence[Any] | None = None, **changes: Any
) -> Rater:
    """``codes``: whatever else the output bytes hold, one for each sample."""
    told = [repr(x).encode() for x in (decisions if codes is None else codes)]
    hashes = np.array([list(hashlib.sha256(x).digest()) for x in told], dtype=np.uint8)
    time = changes.pop("time", 0.0)
    return Rater(name, replace(PLAIN, **changes), np.array(decisions), hashes, time)
