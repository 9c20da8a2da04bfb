"""A finished attempt as bytes: what a hub keeps on its disk and what it sends, the same.

    assay.attempt/1 <sha256 of all that follows this line>\\n
    <JSON: every field but the files, and [name, size] of each of those>\\n
    <the files, one behind the other>

It says what it is, and one flipped bit anywhere shows. Nothing in it is ever executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import re
from typing import Any

from device_worker import plain, wire
from orchestrator.errors import InfraError
from orchestrator.results.files import refuse
from orchestrator.results.finished import Failure, Finished, shown

VERSION = 1
DOCUMENT_LIMIT = 64 << 20
"""Bytes of the JSON."""

_FIRST = re.compile(rb"assay\.attempt/([0-9]{1,9}) ([0-9a-f]{64})")
_LONGEST_FIRST = 100


def encode(finished: Finished) -> bytes:
    """Raises ValueError for what is no plain data."""
    names = sorted(finished.files)
    fields = {**dataclasses.asdict(dataclasses.replace(finished, files={}))}
    fields["files"] = [[name, len(finished.files[name])] for name in names]
    document = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    body = b"\n".join([document.encode(), b"".join(finished.files[name] for name in names)])
    digest = hashlib.sha256(body).hexdigest()
    return b"assay.attempt/%d %s\n" % (VERSION, digest.encode()) + body


def decode(data: bytes) -> Finished:
    """Decode a spooled result.

    Raises InfraError E-RESULT-HASH (not the bytes that were written), E-RESULT-VERSION,
    E-RESULT-FORM. Results written without a hash by older versions are read too (`_legacy`).
    """
    if data[:2] == b"\x80\x04":
        return _legacy(data)
    first, _, body = data[:_LONGEST_FIRST].partition(b"\n")
    found = _FIRST.fullmatch(first)
    if found is None:
        refuse("E-RESULT-HASH", "a finished attempt is damaged: its first line is none")
    if int(found[1]) != VERSION:
        raise InfraError(
            "E-RESULT-VERSION",
            f"a finished attempt has the form {int(found[1])}, this Assay reads {VERSION}",
            fix="use the same Assay on the hub and here; the cell is run again",
        )
    body = data[len(first) + 1 :]
    if hashlib.sha256(body).hexdigest().encode() != found[2]:
        refuse("E-RESULT-HASH", "a finished attempt is damaged: its bytes are not those written")
    document, _, rest = body.partition(b"\n")
    try:
        return _loaded(plain.decode(document, DOCUMENT_LIMIT), rest)
    except wire.WireError as error:
        refuse("E-RESULT-FORM", f"a finished attempt cannot be read: {error}")


def _loaded(data: dict[str, Any], rest: bytes) -> Finished:
    files: dict[str, bytes] = {}
    at = 0
    for entry in data.get("files") or []:
        name, size = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        if not isinstance(name, str) or type(size) is not int or size < 0 or name in files:
            raise wire.WireError("its files are no list of names and sizes")
        files[name] = rest[at : at + size]
        at += size
    if at != len(rest):
        raise wire.WireError(f"its files have {at} bytes, {len(rest)} are there")
    return dataclasses.replace(wire.load(Finished, {**data, "files": {}}), files=files)


def _legacy(data: bytes) -> Finished:
    """What Assay up to October 2026 spooled: a pickle, of which only these two classes are made."""
    try:
        finished = _Plain(io.BytesIO(data)).load()
        if not isinstance(finished, Finished):
            raise ValueError("it is no attempt")
        return decode(encode(finished))  # every field of its type
    except InfraError:
        raise
    except Exception as error:  # noqa: BLE001  damaged bytes raise whatever they happen to spell
        why = shown(str(error)) or type(error).__name__
        refuse("E-RESULT-HASH", f"a finished attempt of an older Assay is damaged: {why}")


class _Plain(pickle.Unpickler):
    _CLASSES = {  # noqa: RUF012  never changed
        ("orchestrator.fanout.order", "Finished"): Finished,
        ("orchestrator.fanout.order", "Failure"): Failure,
    }

    def find_class(self, module: str, name: str) -> Any:
        found = self._CLASSES.get((module, name))
        if found is None:
            raise ValueError(f"it names {module}.{name}")
        return found
