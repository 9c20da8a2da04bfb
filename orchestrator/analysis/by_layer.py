"""Every distinct answer of a run against the FP32 parent, layer by layer: devices are visited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.analysis.rows_load import Json, Set, described, document, load_rows, named
from orchestrator.analysis.rows_pairs import fits
from orchestrator.analysis.tapped import Layered, layered, recorded
from orchestrator.coordinator.device_pair import visited
from orchestrator.diagnosis.sample_choice import choose, distances
from orchestrator.errors import AssayError, InputError, NotAvailableError
from orchestrator.models.graph import NotLocalisableError
from orchestrator.runs.run import Run
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.signoff.case import Case
from orchestrator.store.database import Store
from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import Array

LAYER = "layer"
MOST = 8
"""Samples that are looked into, unless told."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """Rows of one file on one input set, and the samples to look into."""

    about: Set
    rows: Sequence[tuple[Case, Answers]]
    samples: list[int]
    layered: Layered


def by_layer(root: Path, run: str | None, pair: tuple[str, str] | None, most: int) -> Json:
    """The document ``assay.variance/1`` by layer.

    ``pair``: patterns (see `views.pairs.paired`) of the only rows to look at; ``most``: how many
    samples to look into, those where the rows are furthest apart.

    A row with the bytes of another is not visited again: ``same_as`` names the one that was. A
    device that cannot be asked is the ``problem`` of its row. Raises InputError E-RUN-*,
    E-VARIANCE-PAIR; NotAvailableError E-VARIANCE-EMPTY, E-VARIANCE-LAYERS where no row has layers.
    """
    with Store.open(root, readonly=True) as store:
        of = Run(store, run)
        loaded, frozen = load_rows(of), of.frozen
        asked = [_asked(of, s, rows, most) for s in loaded.sets if (rows := _rows(s, pair))]
    if not asked and pair is not None:
        what = f"no rows of one model file fit {pair[0]!r} and {pair[1]!r}"
        raise InputError("E-VARIANCE-PAIR", what, where=loaded.run["id"], fix="see: assay variance")
    sets = [_measured(root, frozen, each) for each in asked]
    problems = [row["problem"] for told in sets for row in told["rows"] if row["problem"]]
    if not any(row["taps"] for told in sets for row in told["rows"]):
        raise NotAvailableError("E-VARIANCE-LAYERS", problems[0], where=loaded.run["id"])
    return document(loaded, LAYER, sets)


def _rows(s: Set, pair: tuple[str, str] | None) -> list[tuple[Case, Answers]]:
    if pair is None:
        return list(s.rows)
    chosen = [row for row in s.rows if any(fits(pattern, s, row[0]) for pattern in pair)]
    return chosen if all(any(fits(p, s, case) for case, _ in chosen) for p in pair) else []


def _asked(run: Run, s: Set, rows: Sequence[tuple[Case, Answers]], most: int) -> _Asked:
    first = _outputs(rows[0][0])
    distance = np.zeros(len(first[0]))
    for case, _ in rows[1:]:
        distance = np.maximum(distance, distances(first, _outputs(case)))
    samples = choose(distance, most)
    return _Asked(s, rows, samples, layered(run, (s.model, s.file, s.inputs), samples))


def _outputs(case: Case) -> tuple[Array, ...]:
    assert case.clean is not None  # rows of a set have an answer
    return tuple(output.values for output in case.clean.outputs)


def _measured(root: Path, frozen: FrozenRun, asked: _Asked) -> Json:
    known: dict[str, str] = {}
    rows = []
    for case, answers in asked.rows:
        told = described(asked.about, case, answers) | {"same_as": known.get(answers.digest)}
        if told["same_as"] is None:
            told |= _visited(root, frozen, asked, case)
            if told["taps"]:
                known[answers.digest] = case.id
        else:
            told |= _nothing(None)
        rows.append(told)
    lineage = asked.layered.lineage
    return {
        **named(asked.about),
        "lineage": lineage and lineage.model_dump(),
        "samples": asked.samples,
        "rows": rows,
    }


def _visited(root: Path, frozen: FrozenRun, asked: _Asked, case: Case) -> dict[str, Any]:
    kept = [values[asked.samples] for values in _outputs(case)]
    try:
        with visited(root, frozen, [(case.row.device, case.row.runtime)]) as (side,):
            same = recorded(asked.layered, side, kept)
            found = asked.layered.taps(side).to_json()
    except (AssayError, NotLocalisableError) as error:
        return _nothing(str(error))
    return {
        "problem": None,
        "reproduced": same,
        "taps": found["taps"],
        "findings": found["findings"],
    }


def _nothing(why: str | None) -> dict[str, Any]:
    return {"problem": why, "reproduced": None, "taps": [], "findings": []}
