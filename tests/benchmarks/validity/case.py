"""One pair of answers of which we know what is wrong, or that nothing is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.attribution.evidence import Evidence, Mechanism, Side, adds_pairs_in_int16
from orchestrator.attribution.signature import signature
from orchestrator.variance.answers import read
from orchestrator.variance.factors import Factors, changed, factors
from orchestrator.variance.lattice import Array, Output
from orchestrator.variance.observation import Row
from orchestrator.variance.tasks import Classification
from tests.benchmarks.validity.world import HERE, Answer, Way

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Seen:
    """What the audit is shown of one side: outputs [n, classes], and where they came from."""

    output: Output
    factors: Factors
    side: Side

    def of(self, rows: Rows) -> Seen:
        return self.with_values(self.output.values[rows])

    def with_values(self, values: Array) -> Seen:
        return replace(self, output=replace(self.output, values=np.ascontiguousarray(values)))

    def other(self, **changes: str) -> Seen:
        """The same answer from elsewhere, say another unit."""
        found = replace(self.factors, **changes)  # type: ignore[arg-type]
        return replace(self, factors=found, side=replace(self.side, factors=_told(found)))

    def told(self, **facts: object) -> Seen:
        return replace(self, side=replace(self.side, **facts))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Case:
    """``mechanism`` None: nothing is wrong. ``factor``: what it is planted in. ``severity``: of its

    kind, larger is worse. ``real``: the mechanism itself ran, on a device or in a runtime; else its
    effect was made up.
    """

    kind: str
    mechanism: Mechanism | None
    factor: str
    severity: float
    real: bool
    evidence: Evidence


def seen(answer: Answer, way: Way, name: str) -> Seen:
    row = Row("m", name, way.device, way.device, way.device != HERE, way.name, "digits", "clean")
    environment = answer.environment
    fallbacks = tuple(answer.backend.fallbacks)
    found = factors(row, way.spec, environment, fallbacks)
    machine, isa = environment.get("machine"), environment.get("isa_flags")
    side = Side(
        row=f"{way.device}/{way.name}",
        factors=_told(found),
        inputs=answer.inputs,
        fallbacks=fallbacks,
        operators=answer.backend.operators,
        pair_sums=adds_pairs_in_int16(
            machine if isinstance(machine, str) else None,
            frozenset(isa if isinstance(isa, list) else ()),
        ),
    )
    return Seen(answer.output, found, side)


@dataclass(frozen=True)
class Maker:
    """Makes cases of one kind."""

    kind: str
    mechanism: Mechanism | None
    factor: str
    real: bool
    made: list[Case] = field(default_factory=list)

    def add(
        self,
        a: Seen,
        b: Seen,
        labels: NDArray[np.int64],
        severity: float,
        saturable: int = 0,
    ) -> Case:
        task = Classification()
        found = signature(read(task, [a.output], labels), read(task, [b.output], labels))
        evidence = Evidence(a.side, b.side, found, changed(a.factors, b.factors), saturable)
        case = Case(self.kind, self.mechanism, self.factor, severity, self.real, evidence)
        self.made.append(case)
        return case


def _told(found: Factors) -> Mapping[str, str]:
    return {k: str(v) for k, v in vars(found).items() if v is not None}
