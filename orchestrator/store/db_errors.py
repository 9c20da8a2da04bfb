"""SQLite and operating-system failures as AssayErrors: one place, used by every store path."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from orchestrator.errors import AssayError, InfraError, InputError


def database_fault(error: BaseException, path: Path) -> AssayError:
    """The AssayError for a failed statement on the database at ``path``.

    Reads the result code (sqlite.org/rescode.html), never the wording.
    """
    code = getattr(error, "sqlite_errorcode", None)
    where = str(path)
    match code & 0xFF if isinstance(code, int) else None:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return InfraError(
                "E-STORE-LOCKED",
                "another process holds the store's write lock",
                where=where,
                fix="wait for it or stop it, then: assay resume",
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return _read_only(where)
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return corrupt(error, path)
        case sqlite3.SQLITE_FULL:
            return _disk_full(where)
        case sqlite3.SQLITE_CANTOPEN:
            return InfraError(
                "E-STORE-OPEN",
                "the store cannot be opened",
                where=where,
                fix="check that folder and file may be read and written",
                retryable=False,
            )
        case _:
            return InfraError(
                "E-STORE-DB", f"{type(error).__name__}: {error}", where=where, retryable=False
            )


def corrupt(error: BaseException, path: Path) -> InfraError:
    return InfraError(
        "E-STORE-CORRUPT",
        f"not a readable Assay database ({error})",
        where=str(path),
        fix="restore it from a backup or move it away",
        retryable=False,
    )


def file_fault(error: OSError, path: Path) -> AssayError:
    """The AssayError for a failed file operation below the store's folder."""
    where = str(path)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return _disk_full(where)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return _read_only(where)
        case _:
            return InfraError(
                "E-STORE-OPEN",
                f"{error.strerror or type(error).__name__}",
                where=where,
                fix="check the store's folder",
                retryable=False,
            )


def value_fault(error: BaseException, path: Path) -> AssayError:
    """A value that no database could hold as it is (NaN in JSON, not JSON at all)."""
    return InfraError(
        "E-STORE-VALUE", f"cannot be stored: {error}", where=str(path), retryable=False
    )


def missing(path: Path) -> AssayError:
    return InputError(
        "E-STORE-MISSING", "there is no store here", where=str(path), fix="run: assay run MATRIX"
    )


def stale(device: str | None, token: int) -> AssayError:
    return InfraError(
        "E-LEASE-STALE",
        f"token {token} for {device or 'no device'} is not the current lease",
        fix="the device was given to another coordinator; this result is not counted",
        retryable=False,
    )


def copied(device: str, there: str, here: str) -> AssayError:
    return InfraError(
        "E-STORE-COPY",
        f"another copy of this store, at {there}, has driven it since the two were one; this one,"
        f" at {here}, may not",
        where=device,
        fix="go on with that copy, or with this one after: assay store adopt",
        retryable=False,
    )


def _read_only(where: str) -> AssayError:
    return InfraError(
        "E-STORE-READONLY",
        "the store may not be written",
        where=where,
        fix="check owner and permissions of the folder and the files in it",
        retryable=False,
    )


def _disk_full(where: str) -> AssayError:
    return InfraError(
        "E-DISK-FULL",
        "no space left for the store",
        where=where,
        fix="free some space, then: assay resume",
        retryable=False,
    )
