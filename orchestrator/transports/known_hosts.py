"""Reading an OpenSSH known_hosts file: which keys are vouched for under which name. Pure."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Standing(Enum):
    """What the file says about a key that a host presented."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Entry:
    """One line. ``marker``: "", "@revoked" or "@cert-authority". ``number`` counts from 0."""

    number: int
    marker: str
    patterns: tuple[str, ...]
    algorithm: str
    blob: bytes

    def names(self, host: str) -> bool:
        """Whether this line speaks of ``host`` (hashes, wildcards and negation understood)."""
        hits = [p for p in self.patterns if _matches(p.removeprefix("!"), host)]
        return bool(hits) and not any(p.startswith("!") for p in hits)

    @staticmethod
    def is_exactly(pattern: str, host: str) -> bool:
        """Whether ``pattern``, plain or hashed, means ``host`` and no other."""
        return not set(pattern) & set("*?!") and _matches(pattern, host)


def parse(text: str) -> list[Entry]:
    """Lines that cannot be read vouch for nothing and are left out, as OpenSSH does."""
    entries = []
    for number, line in enumerate(text.splitlines()):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue
        entries.append(Entry(number, marker, tuple(words[0].split(",")), words[1], blob))
    return entries


def matching(entries: Iterable[Entry], host: str) -> list[Entry]:
    return [e for e in entries if e.names(host)]


def standing(entries: Iterable[Entry], host: str, blob: bytes) -> Standing:
    """Revoked beats known. Any other plain key on file for the host means: changed.

    @cert-authority lines vouch for certificates, which are not accepted here, hence for no key.
    """
    found = matching(entries, host)
    if any(e.marker == "@revoked" and e.blob == blob for e in found):
        return Standing.REVOKED
    plain = [e for e in found if not e.marker]
    if any(e.blob == blob for e in plain):
        return Standing.KNOWN
    return Standing.CHANGED if plain else Standing.UNKNOWN


def fingerprint(blob: bytes) -> str:
    """``SHA256:…`` as ssh-keygen -l prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest())
    return "SHA256:" + digest.decode().rstrip("=")


def _matches(pattern: str, host: str) -> bool:
    if pattern.startswith("|1|"):
        _, _, salt, digest = [*pattern.split("|"), "", ""][:4]
        try:
            want = hmac.digest(base64.b64decode(salt), host.encode(), "sha1")
            return hmac.compare_digest(want, base64.b64decode(digest))
        except binascii.Error:
            return False
    # In OpenSSH only * and ? are special, but "[host]:port" is a literal.
    return fnmatch.fnmatchcase(host.lower(), pattern.lower().replace("[", "[[]"))
