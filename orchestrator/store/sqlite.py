"""SQLite connections: the only place that speaks SQLite and not portable SQL."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

DATABASE = "assay.db"


def open_sqlite(path: Path, *, readonly: bool, busy_timeout: float) -> sqlite3.Connection:
    """A connection in autocommit mode (transactions are begun explicitly), usable by any thread.

    Writers get WAL with synchronous=FULL: a committed result survives a power cut.
    Raises sqlite3.Error.
    """
    uri = path.absolute().as_uri() + ("?mode=ro" if readonly else "?mode=rwc")
    if readonly and not _can_make_shm(path):
        # A WAL database needs its -shm file even to be read; without one nobody writes either.
        uri += "&immutable=1"
    connection = sqlite3.connect(
        uri, uri=True, timeout=busy_timeout, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        if not readonly:
            connection.execute("PRAGMA synchronous=FULL")
            _use_wal(connection, busy_timeout)
    except BaseException:
        connection.close()
        raise
    return connection


def _can_make_shm(path: Path) -> bool:
    import os

    beside = path.with_name(path.name + "-shm")
    return beside.exists() or os.access(path.parent, os.W_OK)


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
