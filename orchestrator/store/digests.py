"""The digest of a row: sha256 over every column that counts, written with it, verified on reading.

It shows a flipped bit or an edited row; it is no signature against somebody who computes it anew.
Columns that say how far the work is (state of a run or a cell, the unit of a slot) are not in it.
A NULL digest is of an attempt that an older Assay wrote: unwitnessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestrator.errors import DamageError
from orchestrator.store.records import AttemptInfo, Blob, canonical, sha256_of


def _plain(value: Any) -> Any:
    """Texts and whole numbers are kept as they are; anything else has no place in such a column."""
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return value
    raise TypeError(f"{type(value).__name__} is neither text nor a whole number")


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _flag(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _json(value: Any) -> Any:
    """As it comes back: databases hand out text or the value; keys are text after a round trip."""
    return json.loads(value if isinstance(value, str) else canonical(value))


def _files(artefacts: Mapping[str, Blob]) -> list[list[Any]]:
    return [[role, blob.sha256, blob.size] for role, blob in sorted(artefacts.items())]


Form = Callable[[Any], Any]
FORMS: dict[str, Form] = {
    **dict.fromkeys(("created", "claimed", "started", "ended"), _float),
    **dict.fromkeys(("emulated", "retryable", "codes_valid", "timing_valid"), _flag),
    **dict.fromkeys(("frozen", "identity", "manifest", "document", "data", "result"), _json),
    "artefacts": _files,
}
COLUMNS: dict[str, tuple[str, ...]] = {
    "run": ("id", "name", "retry_infra", "created", "frozen"),
    "cell": (
        *("run", "id", "position", "slot", "model", "file", "inputs", "condition", "runtime"),
        "env_key",
    ),
    "attempt": (
        *("id", "run", "cell", "number", "device", "token", "offline", "claimed", "state"),
        *("started", "ended", "hub", "error_id", "error", "retryable", "codes_valid"),
        *("timing_valid", "environment", "result", "content", "artefacts"),
    ),
    "device": ("name", "device_class", "emulated", "identity"),
    "pack": ("nonce", "run", "device", "created", "manifest"),
    "verdict": ("run", "created", "document"),
    "baseline": ("key", "model_sha256", "environment", "created", "data"),
    "fingerprint": (
        *("device", "configuration", "version", "environment", "sha256", "document", "created"),
    ),
}
"""By table. A baseline's inputs are in its key."""


def digest_of(table: str, row: Mapping[str, Any]) -> str:
    """sha256 hex over the table's COLUMNS; JSON as text or as data, files by role as ``artefacts``.

    ValueError or TypeError for what no column of that kind can hold.
    """
    values = {name: FORMS.get(name, _plain)(row[name]) for name in COLUMNS[table]}
    return sha256_of([table, values])


def sealed(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """``row`` with its digest, to be inserted."""
    return {**row, "digest": digest_of(table, row)}


def damage_of(table: str, row: Mapping[str, Any], what: str) -> DamageError | None:
    """Why ``row``, as it was read, is not what was written; None where it is, or nobody knows."""
    try:
        whole = row["digest"] is None or row["digest"] == digest_of(table, row)
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    return None if whole else damaged(what, "it is not what was written: its digest differs")


def damaged(what: str, why: str) -> DamageError:
    return DamageError(
        "E-STORE-DAMAGED",
        f"the record of {what} is damaged: {why}",
        fix="restore the store from a backup, or run the cell again",
    )


@contextmanager
def taken_apart(attempt: AttemptInfo) -> Iterator[None]:
    """What a result that is not of its form makes of the code in the block is its damage."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        why = f"its result is not of the agreed form: {type(error).__name__}: {error}"
        raise damaged(f"attempt {attempt.id}", why) from error
