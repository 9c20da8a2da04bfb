"""``python -m tests.benchmarks [NAME…] [--json FILE]``: measure side by side, print tables.

Nothing here passes or fails: figures of a shared machine prove nothing alone. Aims are printed
beside them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.kit import SkippedError, Table, machine

NAMES = (
    "dispatch",
    "worker",
    "resend",
    "startup",
    "store",
    "transports",
    "bringup",
    "telemetry",
    "lineage",
    "columns",
    "pairwise",
    "early",
    "taps",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    given = parser.parse_args()
    for name in given.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; there are {', '.join(NAMES)}")
    about = machine()
    print("  ".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    results: dict[str, Any] = {}
    for name in given.names or NAMES:
        begin = time.perf_counter()
        try:
            tables: list[Table] = importlib.import_module(f"tests.benchmarks.{name}").run()
        except SkippedError as reason:
            print(f"\n{name}: skipped: {reason}", flush=True)
            results[name] = {"skipped": str(reason)}
            continue
        for table in tables:
            print(f"\n{table.text()}", flush=True)
        print(f"  ({name} took {time.perf_counter() - begin:.0f} s)", flush=True)
        results[name] = [table.data() for table in tables]
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
