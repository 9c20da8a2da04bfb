"""Tables as Parquet files, in bounded memory; a folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.errors import AssayError, InfraError, InputError
from orchestrator.export.tables import Table

GROUP = 1 << 20
"""Rows of a row group; two of them are held at a time."""


def write(path: Path, table: Table, batches: Iterable[Any]) -> int:
    """One file of ``batches`` (pyarrow.Tables of the table's schema); how many rows.

    Raises OSError, and whatever the batches raise.
    """
    import pyarrow.parquet as pq

    count = 0
    with pq.ParquetWriter(path, table.schema) as writer, ThreadPoolExecutor(1) as behind:
        written: Future[None] | None = None
        for group in _groups(batches):
            count += sum(batch.num_rows for batch in group)
            if written is not None:
                written.result()
            # Encoding one group takes about as long as reading and deciding the next.
            written = behind.submit(_encode, writer, group)
        if written is not None:
            written.result()
    return count


def _groups(batches: Iterable[Any]) -> Iterator[list[Any]]:
    waiting: list[Any] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= GROUP:
            yield waiting
            waiting, rows = [], 0
    if waiting:
        yield waiting


def _encode(writer: Any, group: list[Any]) -> None:
    import pyarrow as pa

    writer.write_table(pa.concat_tables(group).unify_dictionaries(), row_group_size=GROUP)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path`` at the end; on an error nothing is left of it.

    Raises InputError E-EXPORT-FOLDER unless ``path`` is new or an empty folder, and InfraError
    E-EXPORT-WRITE when it cannot be written.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise _taken(path, "is not a folder")
        if path.is_dir() and any(path.iterdir()):
            raise _taken(path, "is not empty")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside it, so that the last step is a rename within one file system.
        part = path.absolute().with_name(f".{path.name}.part-{os.getpid()}")
        part.mkdir()
        try:
            yield part
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise _unwritable(error, path) from None


def _taken(path: Path, what: str) -> AssayError:
    return InputError(
        "E-EXPORT-FOLDER",
        what,
        where=str(path),
        fix="name a new or an empty folder",
    )


def _unwritable(error: OSError, path: Path) -> AssayError:
    return InfraError(
        "E-EXPORT-WRITE",
        f"the tables cannot be written: {error.strerror or type(error).__name__}",
        where=str(path),
        fix="check permissions and free space, then export again",
        retryable=False,
    )
