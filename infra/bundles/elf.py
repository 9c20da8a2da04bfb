"""What an ELF file needs: just enough of the format to see that a bundle is complete."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRTAB = 1, 5


def needed(path: Path) -> list[str] | None:
    """Names of the shared libraries (DT_NEEDED) in their order; None if it is no ELF file.

    Raises ValueError for a damaged one. Little-endian only, which all our machines are.
    """
    data = path.read_bytes()
    if data[:4] != b"\x7fELF":
        return None
    try:
        return _needed(data)
    except (struct.error, StopIteration) as error:
        raise ValueError(f"{path.name} is a damaged ELF file") from error


def _needed(data: bytes) -> list[str]:
    wide = data[4] == 2
    # Offsets of e_phoff, e_phentsize, e_phnum; layout of a program header and a dynamic entry.
    offset = struct.unpack_from("<Q" if wide else "<I", data, 32 if wide else 28)[0]
    size, count = struct.unpack_from("<HH", data, 54 if wide else 42)
    segments = [_segment(data, offset + i * size, wide) for i in range(count)]
    dynamic = next((s for s in segments if s[0] == _DYNAMIC), None)
    if dynamic is None:
        return []
    entries = list(_entries(data[dynamic[1] : dynamic[1] + dynamic[3]], wide))
    address = next(value for tag, value in entries if tag == _STRTAB)
    load = next(s for s in segments if s[0] == _LOAD and s[2] <= address < s[2] + s[3])
    strings = load[1] + address - load[2]
    names = [strings + value for tag, value in entries if tag == _NEEDED]
    return [data[start : data.index(b"\0", start)].decode() for start in names]


def _segment(data: bytes, at: int, wide: bool) -> tuple[int, int, int, int]:
    """(type, file offset, address, size in the file) of a program header."""
    if wide:
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, at)
    else:
        kind, offset, address, _, size = struct.unpack_from("<IIIII", data, at)
    return kind, offset, address, size


def _entries(table: bytes, wide: bool) -> Iterator[tuple[int, int]]:
    for tag, value in struct.iter_unpack("<qQ" if wide else "<iI", table):
        if tag == 0:
            return
        yield tag, value


def missing(root: Path) -> dict[Path, list[str]]:
    """ELF files below ``root`` -> the libraries they need that no file below ``root`` is named."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    names = {path.name for path in files}
    lacking = {p: [n for n in needed(p) or () if n not in names] for p in files}
    return {path: libraries for path, libraries in lacking.items() if libraries}
