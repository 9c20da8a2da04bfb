"""Content-addressed files: ``<folder>/<first 2 hex digits>/<sha256>``, written once, durable."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from device_worker.scratch import scratch
from orchestrator.errors import DamageError, InfraError
from orchestrator.store.db_errors import file_fault
from orchestrator.store.records import Blob

CHUNK = 1 << 20
MISSING = "E-ARTEFACT-MISSING"
T = TypeVar("T")


def put_and_commit(both: Callable[[], T], tries: int = 5) -> T:
    """Call ``both``, which puts files and then commits a record of them, until it succeeds.

    A put finds a file of the same content there and leaves it; before the commit, a compaction
    (store/compact.py) may delete that file, to which nothing refers yet. Then it is put anew.
    Raises InfraError E-ARTEFACT-MISSING after so many tries, and what ``both`` raises.
    """
    for _ in range(tries - 1):
        try:
            return both()
        except InfraError as error:
            if error.id != MISSING:
                raise
    return both()


class Artefacts:
    """The folder is made on the first put. Safe from many threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._durable: set[Path] = set()

    def put_bytes(self, data: bytes) -> Blob:
        """Keep ``data``. Raises InfraError E-DISK-FULL, E-STORE-READONLY, E-STORE-OPEN."""
        return self._put([data])

    def put_file(self, source: Path, *, expect: str | None = None) -> Blob:
        """Keep a copy of ``source``; its hash is taken from the very bytes that are written.

        Raises InfraError E-ARTEFACT-CORRUPT when it is not ``expect``, and as put_bytes.
        """
        try:
            with source.open("rb") as stream:
                return self._put(_chunks(stream), expect)
        except OSError as error:
            raise file_fault(error, source) from error

    def path(self, sha256: str) -> Path:
        """Where the file is. Raises InfraError E-ARTEFACT-MISSING."""
        path = self.place(sha256)
        if not path.is_file():
            raise _missing(path)
        return path

    def read(self, sha256: str, *, verify: bool = True) -> bytes:
        """The content. Raises InfraError E-ARTEFACT-MISSING, E-ARTEFACT-CORRUPT."""
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise _missing(path) from None
        except OSError as error:
            raise file_fault(error, path) from error
        if verify and (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise _corrupt(path, found)
        return data

    def verify(self, sha256: str) -> None:
        """Hash the file without holding it. Raises as ``read``."""
        path = self.path(sha256)
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise file_fault(error, path) from error
        if found != sha256:
            raise _corrupt(path, found)

    def require(self, blobs: Iterable[Blob]) -> None:
        """Raises InfraError E-ARTEFACT-MISSING, E-ARTEFACT-CORRUPT unless all are there in size."""
        for blob in blobs:
            path = self.path(blob.sha256)
            if (size := path.stat().st_size) != blob.size:
                raise _corrupt(path, f"{size} bytes for {blob.size}")

    def remove(self, sha256: str) -> None:
        """Delete the file if it is there; nothing may refer to it any more."""
        path = self.place(sha256)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise file_fault(error, path) from error

    def place(self, sha256: str) -> Path:
        """Where the file is or would be.

        Raises DamageError E-ARTEFACT-MISSING for what is not 64 lower-case hex digits.
        """
        if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise _missing(self.folder / repr(sha256))
        return self.folder / sha256[:2] / sha256

    def _put(self, chunks: Iterable[bytes], expect: str | None = None) -> Blob:
        digest, size = hashlib.sha256(), 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with scratch("put", str(self.folder)) as made, Path(made, "file").open("wb") as stream:
                for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    stream.write(chunk)
                sha256 = digest.hexdigest()
                if expect is not None and sha256 != expect:
                    raise _corrupt(Path(stream.name), sha256, expect)
                final = self.place(sha256)
                if not _is_whole(final, sha256):
                    stream.flush()
                    os.fsync(stream.fileno())
                    self._make_durable(final.parent)
                    os.fchmod(stream.fileno(), 0o644)
                    Path(stream.name).replace(final)
                    _sync(final.parent)
            return Blob(sha256, size)
        except OSError as error:
            raise file_fault(error, self.folder) from error

    def _make_durable(self, folder: Path) -> None:
        """Make a sub-folder whose own name survives a power cut.

        Once per process and sub-folder, even where another process made it, which may not have
        synced it yet.
        """
        if folder not in self._durable:
            folder.mkdir(exist_ok=True)
            _sync(self.folder)
            self._durable.add(folder)


class Rehearsed(Artefacts):
    """Artefacts of a plan: hashed as those of a run, and kept nowhere."""

    def _put(self, chunks: Iterable[bytes], expect: str | None = None) -> Blob:
        digest, size = hashlib.sha256(), 0
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
        sha256 = digest.hexdigest()
        if expect is not None and sha256 != expect:
            raise _corrupt(self.folder, sha256, expect)
        return Blob(sha256, size)


def _is_whole(path: Path, sha256: str) -> bool:
    """Whether the file is there with the right content: a spoilt one is put again, not kept."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _missing(path: Path) -> DamageError:
    return DamageError(
        "E-ARTEFACT-MISSING",
        "an artefact is not there",
        where=str(path),
        fix="restore it from a backup, or run the cell again",
    )


def _corrupt(path: Path, found: str, expect: str | None = None) -> DamageError:
    return DamageError(
        "E-ARTEFACT-CORRUPT",
        f"artefact {expect or path.name} has content {found}",
        where=str(path),
        fix="delete the file and restore it, or run the cell again",
    )
