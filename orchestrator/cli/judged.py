"""The result document of a run, for the commands that show it."""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from orchestrator.cli.options import store_folder


def judged(run: str | None, folder: Path | None, policy: Path | None = None) -> dict[str, Any]:
    """The kept document of a run, or a new one where there is none or another policy is asked."""
    from orchestrator.fanout.inprocess import InProcess
    from orchestrator.frozen import load_run
    from orchestrator.run import judge
    from orchestrator.store.database import Store

    root = store_folder(folder)
    with Store.open(root, readonly=True) as store:
        run_id = store.run(run).id
        kept = store.verdict(run_id) if policy is None else None
    # One made while the run still went on does not speak for the whole of it, and one made by
    # another version need not have the form that this one prints.
    if (
        kept is not None
        and kept["run"]["state"] == "done"
        and kept["assay_version"] == installed("assay")
    ):
        return kept
    with Store.open(root) as store:
        other = None
        if policy is not None:
            from orchestrator.matrix.yamlfile import load
            from orchestrator.signoff.policy import Policy

            other = load(policy, Policy)
        frozen = load_run(store.frozen(run_id))
        fan = InProcess(root / "spool" / "hub-0")
        try:
            return judge(store, run_id, frozen, fan, other)
        finally:
            fan.close()
