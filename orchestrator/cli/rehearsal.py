"""`plan` follows the path of `run` up to the first device.

It does so in a child process, so that nothing is kept and `plan` itself stays light.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orchestrator.errors import AssayError, InfraError, InputError, NotAvailableError

ROOT = Path(__file__).parents[2]
KINDS = {kind.__name__: kind for kind in (InputError, InfraError, NotAvailableError)}


def rehearse(matrix: Path, patterns: Sequence[str]) -> None:
    """Raises what `orchestrator.run` would raise before the first device is asked.

    InfraError E-PLAN-KILLED where reading the files took more than this machine has.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, str(matrix), *patterns],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *_inherited()])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode < 0:
        raise InfraError(
            "E-PLAN-KILLED",
            f"reading the models and inputs was ended by signal {-done.returncode}",
            where=str(matrix),
            fix="out of memory? set limit on the input sets",
        )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    told = json.loads(done.stdout)
    if told is not None:
        kind = KINDS[told.pop("kind")]
        raise kind(**told)


def _inherited() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH")] if path]


def _main(path: Path, patterns: Sequence[str]) -> None:
    from orchestrator.run import plan, prepare
    from orchestrator.store.artefacts import Rehearsed

    told = None
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def submit(function: Callable[..., Any], *args: Any) -> Future[Any]:
            return pool.submit(function, *args)

        try:
            nowhere = Rehearsed(Path(tempfile.gettempdir()) / "assay-plan")
            prepare(plan(path, patterns), nowhere, submit, lineage=False)
        except AssayError as error:
            pool.shutdown(cancel_futures=True)
            kind = next((n for n, k in KINDS.items() if isinstance(error, k)), "InfraError")
            parts = {"id": error.id, "what": error.what, "where": error.where, "fix": error.fix}
            told = {"kind": kind, **parts}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
