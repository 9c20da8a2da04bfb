"""--by-class of plan, run and submit: which unit represents which, and what that saves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.options import notice, print_json, print_text
from orchestrator.errors import AssayError

if TYPE_CHECKING:
    from orchestrator.coordinator.estimate import Saved
    from orchestrator.matrix.by_class import ByClass
    from orchestrator.matrix.plan import Cell
    from orchestrator.run import Planned
    from orchestrator.store.database import Store


def divided(store: Store, planned: Planned, confidence: float, share: float) -> Planned:
    """The plan by class; who has no fingerprint is said on stderr, and runs in full.

    The day (UTC) draws the samples, so that nightly runs come to see different ones.
    """
    from orchestrator.coordinator.representatives import Wanted
    from orchestrator.run import divide

    unreadable: dict[str, AssayError] = {}
    seed = int(time.strftime("%Y%m%d", time.gmtime()))
    found, division = divide(store, planned, Wanted(confidence, share, seed), unreadable)
    say_left_out(unreadable)
    for why in division.stale:
        notice(f"assay: in full: {why}")
    if division.unknown:
        devices = " ".join(dict.fromkeys(name.partition(":")[0] for name in division.unknown))
        notice(
            f"assay: no fingerprint of {', '.join(division.unknown)}: in full"
            f" (fix: assay fingerprint {devices})"
        )
    return found


def show(
    matrix: Path, select: Sequence[str], confidence: float, share: float, root: Path, as_json: bool
) -> None:
    """Print the plan by class."""
    from orchestrator.cli.rehearsal import rehearse
    from orchestrator.coordinator import estimate
    from orchestrator.matrix.work import total_work
    from orchestrator.run import plan
    from orchestrator.store.database import Store

    in_full = plan(matrix, select)
    rehearse(matrix, select)
    with Store.open(root, readonly=True) as store:
        planned = divided(store, in_full, confidence, share)
        saved = estimate.saved(
            store, planned.matrix, planned.inventory, in_full.cells, planned.cells
        )
    assert planned.by_class is not None
    before = total_work(planned.matrix, in_full.cells)
    work = total_work(planned.matrix, planned.cells)
    if as_json:
        rows = [{**vars(c), "inferences": work.inferences[c.id]} for c in planned.cells]
        print_json(
            {
                "schema": "assay.plan/1",
                "cells": rows,
                "inferences": work.total,
                "by_class": {
                    **planned.by_class.model_dump(mode="json"),
                    "saved_inferences": before.total - work.total,
                    "saved_device_hours": saved.hours,
                    "timed": saved.timed,
                    "spots": saved.spots,
                    "emulated": saved.emulated,
                },
            }
        )
        return
    for cell in planned.cells:
        print_text(cell.id)
    for line in _stands(planned.by_class, {cell.id: cell for cell in in_full.cells}):
        print_text(line)
    print_text(
        f"{len(planned.cells)} cells on {len({c.slot for c in planned.cells})} devices,"
        f" {work.total:,} inferences instead of {before.total:,}"
    )
    if saved.spots:
        print_text(_hours(saved))


def _stands(by_class: ByClass, cells: Mapping[str, Cell]) -> Iterator[str]:
    """One line for all that one unit stands for the same others in."""
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for group in by_class.groups:
        first, *others = (cells[member.full] for member in group.members)
        key = first.slot, first.runtime, tuple(cell.slot for cell in others)
        found.setdefault(key, []).append(f"{first.model}.{first.file} on {first.inputs}")
    for (slot, runtime, stood_for), asked in found.items():
        yield f"{slot} stands for {', '.join(stood_for)} in {runtime}: {', '.join(asked)}"


def _hours(saved: Saved) -> str:
    from orchestrator.reports.by_class import device_time

    if not saved.timed:
        return "device-time saved: unknown, the store has no latency of these devices and files"
    untimed = saved.spots - saved.timed
    of = f", {untimed} of {saved.spots} spot checks left out for want of one" if untimed else ""
    note = " (emulated, which says nothing of hardware)" if saved.emulated else ""
    return f"{device_time(3600 * saved.hours)} saved at the pace of earlier runs{of}{note}"


def say_left_out(unreadable: Mapping[str, AssayError]) -> None:
    for id, error in unreadable.items():
        notice(f"assay: {id} is left out: {error}")
