"""One question to the tables of a folder, answered by a locked DuckDB in a limited child.

Two fences, either of which would do. DuckDB itself: no external access except the tables' own
files, no extensions, no Python variables, configuration locked, one SELECT only. The child process:
an empty environment, no file may grow by a byte, memory and CPU time limited by the kernel, killed
when its time is over (DuckDB heeds an interrupt only between batches).
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import AssayError, DeadlineError, InfraError, InputError
from orchestrator.export.tables import TABLES

WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Limits:
    """Seconds, MiB and rows of the answer. ``threads`` 0: as many as there are cores, up to 4."""

    timeout_s: float = 60.0
    memory_mib: int = 2048
    rows: int = 1000
    threads: int = 0


@dataclass(frozen=True)
class Answer:
    """``columns``: (name, DuckDB's type). Values are JSON data. ``truncated``: there are more."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "assay.sql/1",
            "columns": [{"name": name, "type": type} for name, type in self.columns],
            "rows": self.rows,
            "truncated": self.truncated,
        }


def wanted(sql: str) -> set[str]:
    """Tables that the question may read: every one whose name stands in it as a word.

    Too many cost time, too few would fail loudly. ``problems`` are known when all the rest is.
    """
    words = {word.lower() for word in WORDS.findall(sql)}
    return set(TABLES) if "problems" in words else words & set(TABLES)


def ask(folder: Path, tables: Collection[str], sql: str, limits: Limits) -> Answer:
    """``folder`` holds NAME.parquet of each table.

    Raises InputError E-SQL-QUERY (a mistake in it, with line and column), E-SQL-READING (not one
    SELECT), E-SQL-LOCKED (reaches outside), E-SQL-MEMORY, DeadlineError E-SQL-TIMEOUT, InfraError
    E-SQL-CHILD.
    """
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise InputError("E-SQL-QUERY", "the question is not UTF-8 text") from None
    request = {
        "tables": {name: str((folder / f"{name}.parquet").resolve()) for name in sorted(tables)},
        "sql": sql,
        **asdict(limits),
    }
    child = subprocess.Popen(
        [sys.executable, "-B", "-m", "orchestrator.export.ask_child"],
        cwd=Path(__file__).parents[2],
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Ctrl-C is for us to hear; the child is killed below.
        process_group=0,
    )
    try:
        out, err = child.communicate(json.dumps(request).encode(), timeout=limits.timeout_s)
    except subprocess.TimeoutExpired:
        raise DeadlineError(
            "E-SQL-TIMEOUT",
            f"the question was not answered within {limits.timeout_s:g} s",
            fix="narrow it, or give it longer: --timeout SECONDS",
        ) from None
    finally:
        child.kill()
        child.communicate()
    return _answer(child.returncode, out, err, limits)


def _answer(code: int, out: bytes, err: bytes, limits: Limits) -> Answer:
    try:
        told = json.loads(out)
    except ValueError:
        raise _ended(code, err, limits) from None
    if "error" in told:
        raise InputError(told["error"], told["what"], where=told["where"], fix=told["fix"])
    return Answer(
        tuple((name, type) for name, type in told["columns"]),
        tuple(tuple(row) for row in told["rows"]),
        told["truncated"],
    )


def _ended(code: int, err: bytes, limits: Limits) -> AssayError:
    if code == -signal.SIGXCPU:
        return DeadlineError("E-SQL-TIMEOUT", "the question used up its CPU time")
    last = err.decode(errors="replace").strip().rpartition("\n")[2]
    name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    return InfraError(
        "E-SQL-CHILD",
        f"the process that answers ended without an answer ({name}) {last[:200]}",
        fix=f"if the question is a large one, raise --memory (now {limits.memory_mib} MiB)",
        retryable=False,
    )
