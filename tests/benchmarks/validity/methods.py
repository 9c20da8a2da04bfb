"""The methods that are compared: a case in, what it says of it out. All of it is product code."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.analysis.localise import Looked, look
from orchestrator.analysis.tapped import Layered
from orchestrator.diagnosis.evidence import Mechanism
from orchestrator.diagnosis.pair import Pair
from orchestrator.diagnosis.result import OPERATOR, PLAN
from orchestrator.diagnosis.rules import attribute
from orchestrator.diagnosis.sample_choice import choose, distances
from orchestrator.models import surgery
from orchestrator.models.lineage_child import answer
from orchestrator.models.surgery_child import DO
from orchestrator.variance.intervals import tango_upper
from orchestrator.variance.slices import losing, same_inputs, slices
from orchestrator.variance.softmax import Head
from tests.benchmarks.validity.case import Case

SAMPLES = 8
"""Looked into layer by layer: the product's default."""
UNKNOWN_HEAD = Head("unclear", "confidence is not asked for here")


@dataclass(frozen=True)
class Said:
    """``what``: a mechanism, finding or verdict; ``where``: factors, operator, class, as names."""

    what: str
    where: tuple[str, ...]


@dataclass(frozen=True)
class Heard:
    """What each method says of a case; nothing: it raises no alarm."""

    accuracy: tuple[Said, ...]
    cross: tuple[Said, ...]
    layers: tuple[Said, ...]
    parent: tuple[Said, ...]
    slices: tuple[Said, ...]

    def by(self, method: str) -> tuple[Said, ...]:
        """What one of METHODS says of a case.

        "all": the most telling first: why two devices differ, a parent that is none, what the
        layers show, a class that loses; that accuracy fell says least.
        """
        groups = {
            "accuracy": self.accuracy,
            "cross": self.cross,
            "layers": self.layers,
            "files": (*self.parent, *self.slices),
        }
        if method != "all":
            return groups[method]
        return (*self.cross, *self.parent, *self.layers, *self.slices, *self.accuracy)


METHODS = ("accuracy", "cross", "layers", "files", "all")


def hear(case: Case) -> Heard:
    return Heard(
        by_accuracy(case), by_rows(case), by_layers(case), by_parent(case), by_slices(case)
    )


def by_accuracy(case: Case) -> tuple[Said, ...]:
    """An accuracy benchmark.

    b loses against the other device, or where both are alike against its FP32 parent; the 95 %
    interval of the paired difference lies below zero.
    """
    before = case.answers[0].correct if case.pair else case.truth.correct
    after = case.answers[1].correct
    assert before is not None
    assert after is not None
    gained, lost = int((~before & after).sum()), int((before & ~after).sum())
    below = tango_upper(gained, lost, len(before), 0.975) < 0
    return (Said("loss", ()),) if below else ()


def by_rows(case: Case) -> tuple[Said, ...]:
    """Two devices sample by sample, and why they differ."""
    told = attribute(case.evidence)
    if told.mechanism is Mechanism.IDENTICAL:
        return ()
    return (Said(str(told.mechanism), told.factors or ()),)


def by_layers(case: Case) -> tuple[Said, ...]:
    """Where the two devices part, and a's layers against the FP32 parent's."""
    looked = look_into(case)
    found = []
    if looked.found.answer == PLAN:
        found.append(Said("plan", ()))
    elif looked.found.answer == OPERATOR:
        first = looked.found.first
        guilty = looked.found.guilty or (() if first is None else (first,))
        found.append(Said("operator", tuple(map(str, guilty))))
    if looked.taps is not None:
        taps = looked.taps.taps
        found += [Said(f.name, (str(taps[f.tap].index),)) for f in looked.taps.findings]
    return tuple(found)


def look_into(case: Case) -> Looked:
    a, b = case.a, case.b
    chosen = np.array(choose(distances(a.outputs, b.outputs), SAMPLES))
    asked = Layered(
        case.model,
        case.form,
        (case.fed[chosen],),
        case.parent or b"",
        (case.golden[chosen],),
    )
    recorded = tuple(x[chosen] for x in a.outputs), tuple(x[chosen] for x in b.outputs)
    return look(asked, recorded, Pair(a.unit, b.unit), tapped=case.parent is not None)


def by_parent(case: Case) -> tuple[Said, ...]:
    """The weights against those of the file that is said to be the parent."""
    verdict = _lineage(case.form, case.model, *case.claimed)
    sound = verdict in ("nearest-step", "inconclusive")
    return () if sound else (Said("wrong parent", (verdict,)),)


def by_slices(case: Case) -> tuple[Said, ...]:
    """Each class of samples by itself, against the FP32 parent."""
    columns, same = {"label": case.labels}, same_inputs(case.golden)
    each = slices(case.answers[1], case.truth, UNKNOWN_HEAD, columns, seed=0, same=same)
    lost = [s.value for s, claim in zip(each, losing(each), strict=True) if claim]
    return (Said("slice", tuple(lost)),) if lost else ()


@functools.lru_cache(maxsize=4096)
def _lineage(form: str, model: bytes, parent_form: str, parent: bytes) -> str:
    with tempfile.TemporaryDirectory() as name:
        files = Path(name) / f"int8.{form}", Path(name) / f"fp32.{parent_form}"
        files[0].write_bytes(model)
        files[1].write_bytes(parent)
        return str(answer(*map(str, files))["verdict"])


@contextmanager
def surgery_here() -> Iterator[None]:
    """Meanwhile models are cut in this process, and each question is answered once.

    The child that does it otherwise guards against hostile files, and these are our own.
    """
    ask: Any = surgery._ask
    known: dict[str, Any] = {}

    def here(what: str, files: Sequence[bytes], **arguments: Any) -> Any:
        digests = [hashlib.sha256(file).hexdigest() for file in files]
        key = repr((what, digests, sorted(arguments.items())))
        if key not in known:
            told, pieces = DO[what](files, arguments)
            known[key] = json.loads(json.dumps(told)), pieces
        return known[key]

    surgery._ask = here
    try:
        yield
    finally:
        surgery._ask = ask
