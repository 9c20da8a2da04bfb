"""SQLite connections: the only place that speaks SQLite and not portable SQL."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DATABASE = "assay.db"


def open_sqlite(path: Path, *, readonly: bool, busy_timeout: float) -> sqlite3.Connection:
    """A connection in autocommit mode (transactions are begun explicitly), usable by any thread.

    Writers get WAL with synchronous=FULL: a committed result survives a power cut.
    Raises sqlite3.Error.
    """
    uri = path.absolute().as_uri() + ("?mode=ro" if readonly else "?mode=rwc")
    if readonly and _untouchable(path):
        # Reading a WAL database creates side files; where that is forbidden nobody writes either.
        uri += "&immutable=1"
    connection = sqlite3.connect(
        uri, uri=True, timeout=busy_timeout, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = _text
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        if not readonly:
            connection.execute("PRAGMA synchronous=FULL")
            _use_wal(connection, busy_timeout)
    except BaseException:
        connection.close()
        raise
    return connection


def _text(data: bytes) -> str:
    """A flipped bit that leaves no UTF-8 spoils its row (its digest differs), not the question."""
    return data.decode("utf-8", "replace")


def faults(execute: Callable[[str], Iterable[Any]]) -> list[str]:
    """What SQLite finds wrong with its file, and rows that refer to rows that are not there."""
    found = [str(row[0]) for row in execute("PRAGMA integrity_check")]
    broken = [
        f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there"
        for row in execute("PRAGMA foreign_key_check")
    ]
    return [*(why for why in found if why != "ok"), *broken]


def _untouchable(path: Path) -> bool:
    """The folder may not be written, and no writer's side files lie in it."""
    beside = any(path.with_name(path.name + end).exists() for end in ("-wal", "-shm"))
    return not beside and not os.access(path.parent, os.W_OK)


def _use_wal(connection: sqlite3.Connection, patience: float) -> None:
    """Switching to WAL needs a moment without readers, and SQLite does not wait for it itself."""
    deadline = time.monotonic() + patience
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
