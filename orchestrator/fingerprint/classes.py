"""Equivalence classes: devices and runtimes whose fingerprints are equal. Documents only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.fingerprint.words import Document, difference, differing, narrowed


@dataclass(frozen=True)
class Member:
    """``configuration``: runtime and kernel set, as in "litert/reference"."""

    device: str
    configuration: str
    version: str | None
    document: Document

    @property
    def name(self) -> str:
        return f"{self.device}:{self.configuration}"


@dataclass(frozen=True)
class Split:
    """``member`` answers otherwise than ``first`` in these operator families."""

    configuration: str
    member: Member
    first: Member
    families: Sequence[str]
    words: str


def of_families(members: Iterable[Member], globs: Sequence[str]) -> list[Member]:
    """Members by those operator families alone; without those that were asked none of them."""
    narrow = [replace(m, document=narrowed(m.document, globs)) for m in members]
    return [member for member in narrow if member.document["families"]]


def classes(members: Iterable[Member]) -> list[list[Member]]:
    """Members with equal answers together, the order kept."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.document["sha256"], []).append(member)
    return list(found.values())


def splits(members: Sequence[Member]) -> list[Split]:
    """Per configuration, each class against the one that comes first."""
    found = []
    for configuration in dict.fromkeys(member.configuration for member in members):
        groups = classes(m for m in members if m.configuration == configuration)
        first = groups[0][0]
        found += [_split(group[0], first) for group in groups[1:]]
    return found


def _split(member: Member, first: Member) -> Split:
    families: list[str] = []
    if member.document["pack"] == first.document["pack"]:
        listed = differing(member.document, first.document).values()
        families = list(dict.fromkeys(name for names in listed for name in names))
    words = difference(member.document, first.document, first.device)
    return Split(member.configuration, member, first, families, words)


def grouped_json(members: Sequence[Member]) -> dict[str, Any]:
    """The parts ``classes`` and ``splits`` of a JSON answer."""
    return {
        "classes": [
            {
                "sha256": group[0].document["sha256"],
                "members": [
                    {"device": m.device, "configuration": m.configuration, "version": m.version}
                    for m in group
                ],
            }
            for group in classes(members)
        ],
        "splits": [
            {
                "configuration": split.configuration,
                "a": split.member.device,
                "b": split.first.device,
                "families": list(split.families),
                "words": split.words,
            }
            for split in splits(members)
        ],
    }
