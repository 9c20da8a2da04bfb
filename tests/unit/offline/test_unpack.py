"""Archives that no run.sh wrote: each refused in one line, and nothing outside the folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InputError
from orchestrator.offline import unpack as module
from orchestrator.offline.unpack import unpack
from tests.support.offline import write

CONTENT = b"exactly what the model put out" * 50
SHA = hashlib.sha256(CONTENT).hexdigest()
NAME = f"files/{SHA}"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "deep" / "into"
    folder.mkdir(parents=True)
    return folder


def take(path: Path, into: Path, files: Mapping[str, int] | None = None) -> bytes:
    """The document; ``files`` must follow it."""
    seen: list[bytes] = []

    def expect(document: bytes) -> Mapping[str, int]:
        seen.append(document)
        return {SHA: len(CONTENT)} if files is None else files

    unpack(path, into, expect)
    return seen[0]


def refused(path: Path, into: Path, what: str, id: str = "E-INGEST-FORM") -> None:
    with pytest.raises(InputError, match=what) as caught:
        take(path, into)
    assert caught.value.id == id
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def link(name: str, kind: bytes, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def test_what_run_sh_writes_is_read(tmp_path: Path, into: Path) -> None:
    path = write(tmp_path / "r.tar.gz", {"a": 1}, {NAME: CONTENT})
    assert take(path, into) == b'{"a": 1}'
    assert [(p.name, p.read_bytes()) for p in into.iterdir()] == [(SHA, CONTENT)]


def test_a_sparse_file_of_four_gigabytes_is_not_unpacked(tmp_path: Path, into: Path) -> None:
    """Two megabytes are not even needed: its map says that all of it is a hole."""
    size = 4_000_000_000
    info = tarfile.TarInfo(NAME)
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(size),
        "GNU.sparse.map": f"{size},0",
    }
    path = tmp_path / "r.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        document = tarfile.TarInfo("result.json")
        document.size = 2
        tar.addfile(document, io.BytesIO(b"{}"))
        tar.addfile(info)
    with pytest.raises(InputError, match="not a plain file"):
        take(path, into, {SHA: size})
    assert list(into.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        (f"../{NAME}", CONTENT, "has no place"),
        (f"files/../../../{SHA}", CONTENT, "has no place"),
        (f"/tmp/{SHA}", CONTENT, "has no place"),
        ("files/short", CONTENT, "has no place"),
        (f"{NAME}\n", CONTENT, "has no place"),
        ("files/" + "0" * 64, CONTENT, "not one of its files"),
        (NAME, CONTENT + b"+", "not of its size"),
        (NAME, link(NAME, tarfile.SYMTYPE, "/etc/passwd"), "not a plain file"),
        (NAME, link(NAME, tarfile.LNKTYPE, "result.json"), "not a plain file"),
        (NAME, link(NAME, tarfile.CHRTYPE), "not a plain file"),
        (NAME, link(NAME, tarfile.FIFOTYPE), "not a plain file"),
        (NAME, link(NAME, tarfile.DIRTYPE), "not a plain file"),
        (NAME, link(NAME, tarfile.GNUTYPE_SPARSE), "not a plain file"),
        (NAME, link(NAME, tarfile.CONTTYPE), "not a plain file"),
    ],
)
def test_only_its_own_plain_files(
    tmp_path: Path, into: Path, name: str, content: Any, what: str
) -> None:
    refused(write(tmp_path / "r.tar.gz", b"{}", {name: content}), into, what)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {tmp_path / "r.tar.gz"}


def test_bytes_that_are_not_those_of_the_name(tmp_path: Path, into: Path) -> None:
    changed = CONTENT[:-1] + b"T"
    refused(write(tmp_path / "r", b"{}", {NAME: changed}), into, "other bytes", "E-INGEST-HASH")


def test_a_file_twice_or_not_at_all(tmp_path: Path, into: Path) -> None:
    refused(write(tmp_path / "none", b"{}", {}), into, "1 of its files are missing")
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, data in (("result.json", b"{}"), (NAME, CONTENT), (NAME, CONTENT)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "twice").write_bytes(raw.getvalue())
    refused(tmp_path / "twice", into, "not one of its files")


def cut(data: bytes) -> Iterator[bytes]:
    for tenth in range(10):
        yield data[: len(data) * tenth // 10]
    yield data[:-1]


def test_one_cut_short_anywhere(tmp_path: Path, into: Path) -> None:
    whole = write(tmp_path / "whole", b'{"x": "' + b"y" * 3000 + b'"}', {NAME: CONTENT})
    for part in cut(whole.read_bytes()):
        (tmp_path / "part").write_bytes(part)
        refused(tmp_path / "part", into, "damaged or cut short|does not begin")


@pytest.mark.parametrize("data", [b"", b"no archive", gzip.compress(b"no tar" * 500)])
def test_no_archive_at_all(tmp_path: Path, into: Path, data: bytes) -> None:
    (tmp_path / "r").write_bytes(data)
    refused(tmp_path / "r", into, "damaged or cut short|does not begin")


def test_a_document_that_is_not_the_first(tmp_path: Path, into: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        info = tarfile.TarInfo(NAME)
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
    (tmp_path / "r").write_bytes(raw.getvalue())
    refused(tmp_path / "r", into, "does not begin")


def test_more_than_it_may_hold(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOCUMENT_LIMIT", 1000)
    monkeypatch.setattr(module, "_SLACK", 20_000)
    refused(write(tmp_path / "doc", b" " * 1001, {}), into, "too large")
    # A header that promises little text and brings much: what tar itself would read into memory.
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 20
    bomb = info.tobuf() + b"\0" * (1 << 20)
    (tmp_path / "bomb").write_bytes(gzip.compress(bomb))
    refused(tmp_path / "bomb", into, "more bytes")
    monkeypatch.setattr(module, "FILES_LIMIT", len(CONTENT) - 1)
    refused(write(tmp_path / "big", b"{}", {NAME: CONTENT}), into, "bytes")


def test_one_that_cannot_be_read(tmp_path: Path, into: Path) -> None:
    refused(tmp_path / "nowhere", into, "No such file", "E-INGEST-READ")
    refused(tmp_path, into, "directory", "E-INGEST-READ")
