"""Store → what is known of the hypothesis that equal fingerprints mean equal codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.conditions import CLEAN, parse
from orchestrator.errors import AssayError, DamageError
from orchestrator.fingerprint.hypothesis import Check, Said, Tested, configuration, counted
from orchestrator.fingerprint.provenance import Prints
from orchestrator.runs.answers import Answer, Standing, standings
from orchestrator.runs.run import every_run
from orchestrator.store.database import Store
from orchestrator.store.records import Json


@dataclass(frozen=True)
class Record:
    """Stored fingerprints, and which of them do not count any more.

    ``prints``: the stored fingerprints. ``stale``: device and configuration -> why its newest
    fingerprint does not count, with the fix: its newest answer since came of something else.
    """

    prints: Prints
    tested: Tested
    stale: Mapping[tuple[str, str], str]


def record(store: Store, unreadable: dict[str, AssayError]) -> Record:
    """Of every run, oldest first: whole answers, spot checks, and what these came to at sign-off.

    An answer counts as long as the newest fingerprint of its device and configuration speaks for
    it (`matrix.key`). Runs whose record is damaged are told to ``unreadable`` by their IDs, and
    the others still count.
    """
    damage: dict[str, DamageError] = {}
    prints = Prints(store.fingerprints(damage=damage))
    unreadable.update(damage)
    spots: dict[str, Said] = {}
    whole: dict[str, Said] = {}
    latest: dict[tuple[str, str], tuple[float, str | None]] = {}
    by_class: dict[str, None] = {}
    found = standings(list(every_run(store))[::-1], unreadable) if any(prints) else ()
    for standing in found:
        if standing.run.frozen.by_class is not None:
            by_class[standing.run.id] = None
        answer = standing.answer
        if answer is None:
            continue
        who = answer.factors.unit, configuration(answer.factors.runtime, answer.factors.kernels)
        newest = prints.newest(*who)
        if newest is None:
            continue
        why = prints.stale(answer.factors)
        if standing.time > latest.get(who, (newest.created, None))[0]:
            latest[who] = standing.time, why
        clean = answer.factors.condition == CLEAN
        # With its state left alone, drawn samples are another stream than all of them.
        drawn = parse(answer.factors.condition).draw and answer.factors.reset == "on"
        if why is None and (clean or drawn):
            kept = whole if clean else spots
            kept[answer.attempt.id] = _said(newest.sha256, ":".join(who), standing, answer)
    checks: list[Check] = []
    for run in by_class:
        try:
            verdict = store.verdict(run)
        except DamageError as error:
            unreadable[f"the verdict of {run}"] = error
        else:
            checks += _checks(spots, whole, verdict) if verdict else ()
    stale = {who: why for who, (_, why) in sorted(latest.items()) if why}
    return Record(prints, counted([*whole.values(), *spots.values()], checks), stale)


def _said(fingerprint: str, who: str, standing: Standing, answer: Answer) -> Said:
    cell, result = standing.cell, answer.attempt.result
    return Said(
        fingerprint,
        who,
        answer.attempt.id,
        (
            answer.file_sha256,
            *answer.inputs_sha256,
            str(result["repeats"]["samples"]) if result else "",
            str(answer.factors.threads),
            answer.factors.reset,
        ),
        answer.content,
        f"{cell.model}.{cell.file} with {cell.inputs} {cell.condition}",
    )


def _checks(spots: Mapping[str, Said], whole: Mapping[str, Said], verdict: Json) -> Iterator[Check]:
    """Spot checks that were held against a representative, as the run's sign-off kept them.

    One that left its class without a difference (another version, another backend) says nothing.
    """
    rows = {row["id"]: row for row in verdict["rows"]}
    for row in rows.values():
        told = row.get("by_class")
        if not told or not (told["standing"] == "covered" or told["differing"]):
            continue
        spot = spots.get(told["spot"])
        answers = [whole[a] for a in rows[told["by"]]["attempts"] if a in whole]
        full = next((a for a in answers if spot and a.fingerprint == spot.fingerprint), None)
        if spot and full:
            yield Check(spot, full, told["differing"])
