"""How long `assay status` takes from the shell to its exit, beside what Python itself takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.store.database import Store
from orchestrator.transports.settings import SshSettings
from tests.benchmarks import farm
from tests.benchmarks.kit import SkippedError, Table, interleave, scaled

TURNS = 15
AIM_S = 0.35


def run() -> list[Table]:
    assay = Path(sys.executable).with_name("assay")
    if not assay.exists():
        raise SkippedError(f"no {assay}: install the package")
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        with Store.open(folder / "store") as store:
            farm.submit(store, farm.tiny_matrix(folder, SshSettings(host="none"), 50))
        taken = interleave(
            {
                "python -c pass": _command(sys.executable, "-c", "pass"),
                "python -c 'import typer'": _command(sys.executable, "-c", "import typer"),
                "assay status": _command(str(assay), "status", "--store", str(folder / "store")),
                "assay version": _command(str(assay), "version"),
            },
            TURNS,
        )
    table = Table("cold start, process start to exit; store with one run of 50 cells", "ms")
    for label, values in taken.items():
        table.add(label, scaled(values, 1e3))
    table.note(f"aim for assay status: {AIM_S * 1e3:.0f} ms")
    return [table]


def _command(*words: str) -> Callable[[], object]:
    return lambda: subprocess.run(words, check=True, capture_output=True)
