"""Reading a result archive that anyone may have made: bounded, and nothing but plain files."""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from device_worker.archive import DOCUMENT_LIMIT, RESULT_FILE
from orchestrator.errors import InputError

FILES_LIMIT = 4 << 30
"""Bytes of all files together."""
_SLACK = 1 << 20
"""Bytes beside the files: the tar's own blocks."""
_BLOCK = 512
_CHUNK = 1 << 20
_FILE = re.compile("files/([0-9a-f]{64})")


class _Bounded:
    """Decompressed bytes, no more of them than allowed."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self._stream, self._path, self.left = stream, path, DOCUMENT_LIMIT + _SLACK

    def read(self, size: int) -> bytes:
        found = self._stream.read(size)
        self.left -= len(found)
        if self.left < 0:
            raise form(self._path, "it holds more bytes than its files have")
        return found


def unpack(path: Path, into: Path, expect: Callable[[bytes], Mapping[str, int]]) -> None:
    """Bring the files of the result archive at ``path`` into the folder ``into``, named by hash.

    The archive begins with its document. ``expect`` is given it and answers with the files that
    must follow (sha256 -> bytes), no more and no fewer; whatever it raises ends the reading.
    Raises InputError E-INGEST-FORM (no such archive, cut short, links, other paths, too large),
    E-INGEST-HASH (other bytes than their name says).
    """
    try:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as plain:
            stream = _Bounded(plain, path)
            with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
                _members(tar, stream, path, into, expect)
            while plain.read(_CHUNK):  # the checksum stands at the end
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise form(path, f"it is damaged or cut short: {error}") from None
    except OSError as error:
        raise InputError(
            "E-INGEST-READ", f"cannot be read: {error.strerror}", where=str(path)
        ) from None


def _members(
    tar: tarfile.TarFile,
    stream: _Bounded,
    path: Path,
    into: Path,
    expect: Callable[[bytes], Mapping[str, int]],
) -> None:
    first = tar.next()
    if first is None or first.name != RESULT_FILE or not first.isreg():
        raise form(path, f"it does not begin with {RESULT_FILE}")
    if first.size > DOCUMENT_LIMIT:
        raise form(path, f"its {RESULT_FILE} is too large")
    document = tar.extractfile(first)
    assert document is not None  # a regular file
    missing = dict(expect(document.read()))
    total = sum(missing.values())
    if total > FILES_LIMIT:
        raise form(path, f"its files have {total} bytes")
    stream.left = total + _SLACK + 2 * _BLOCK * len(missing)
    while (member := tar.next()) is not None:
        sha256 = _named(member, path)
        if member.size != missing.pop(sha256, None):
            raise form(path, f"{member.name} is not one of its files, or not of its size")
        _keep(tar, member, into / sha256, path)
    if missing:
        raise form(path, f"{len(missing)} of its files are missing")


def _named(member: tarfile.TarInfo, path: Path) -> str:
    # tarfile counts sparse files, which unpack to more than was packed, as regular ones.
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
        raise form(path, f"{member.name[:80]!r} is not a plain file")
    found = _FILE.fullmatch(member.name)
    if found is None:
        raise form(path, f"{member.name[:80]!r} has no place in it")
    return found[1]


def _keep(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, path: Path) -> None:
    content, digest = tar.extractfile(member), hashlib.sha256()
    assert content is not None  # a regular file
    with target.open("wb") as file:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != target.name:
        raise InputError(
            "E-INGEST-HASH",
            f"{member.name[:20]}… has other bytes than it should",
            where=str(path),
            fix="copy the archive again; if that does not help, run the cells again",
        )


def form(path: Path, what: str) -> InputError:
    return InputError(
        "E-INGEST-FORM",
        f"no result of `run.sh`: {what}",
        where=str(path),
        fix="copy the archive again, as run.sh wrote it",
    )
