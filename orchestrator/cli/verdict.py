"""The result document of a run, for the commands that show it."""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.options import store_folder
from orchestrator.errors import DamageError

if TYPE_CHECKING:
    from orchestrator.store.database import Store


def judged(run: str | None, folder: Path | None, policy: Path | None = None) -> dict[str, Any]:
    """The kept document of a run where all it rests on is still what it was, else a new one.

    A new one also where there is none, or another policy is asked.
    """
    from orchestrator.fanout.inprocess import InProcess
    from orchestrator.run import judge
    from orchestrator.runs.run import Run
    from orchestrator.store.database import Store
    from orchestrator.store.uses import run_damage

    root = store_folder(folder)
    with Store.open(root, readonly=True) as store:
        run_id = store.run(run).id
        damage = run_damage(store, run_id)
        if policy is None and not damage and (kept := _kept(store, run_id)):
            return kept
    with Store.open(root) as store:
        other = None
        if policy is not None:
            from orchestrator.matrix.policy import Policy
            from orchestrator.matrix.yamlfile import load

            other = load(policy, Policy)
        fan = InProcess(root / "spool" / "hub-0")
        try:
            return judge(Run(store, run_id), fan, other, damage)
        finally:
            fan.close()


def _kept(store: Store, run: str) -> dict[str, Any] | None:
    """The newest document, unless it may not be shown any more.

    One made while the run still went on does not speak for the whole of it, one made by another
    version need not have the form that this one prints, what was damaged then is not now, and one
    made of other records says nothing of these.
    """
    try:
        kept = store.verdict(run)
    except DamageError:
        return None
    current = (
        kept is not None
        and kept["run"]["state"] == "done"
        and kept["assay_version"] == installed("assay")
        and not kept.get("damaged")
        and {a["id"]: a.get("digest") for a in kept["attempts"]}
        == {a.id: a.digest for a in store.attempts(run)}
    )
    return kept if current else None
