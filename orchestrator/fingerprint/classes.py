"""Equivalence classes of devices and runtimes. Pure.

Members have equal fingerprints, and no answers to models that tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.fingerprint.describe import Document, difference, differing, narrowed
from orchestrator.fingerprint.hypothesis import Tested, evidence
from orchestrator.matrix.by_class import house

UNTESTED = Tested(0, 0, ())


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
    """``member`` answers differently than ``first`` in these operator families.

    Of none where the probes do not tell them apart, but data did.
    """

    configuration: str
    member: Member
    first: Member
    families: Sequence[str]
    words: str


def of_families(members: Iterable[Member], globs: Sequence[str]) -> list[Member]:
    """Members by those operator families alone; without those that were asked none of them."""
    narrow = [replace(m, document=narrowed(m.document, globs)) for m in members]
    return [member for member in narrow if member.document["families"]]


def classes(members: Iterable[Member], tested: Tested = UNTESTED) -> list[list[Member]]:
    """Members with equal answers together, in order; those that data told apart are apart."""
    found: dict[str, list[list[Member]]] = {}
    for member in members:
        homes = found.setdefault(member.document["sha256"], [])
        house(homes, member, lambda a, b: tested.between(a.name, b.name) is not None)
    return [home for homes in found.values() for home in homes]


def splits(members: Sequence[Member], tested: Tested = UNTESTED) -> list[Split]:
    """How classes differ: per configuration, each against the first one.

    A class that only data tells from an earlier one is compared with that instead.
    """
    found = []
    for configuration in dict.fromkeys(member.configuration for member in members):
        alike: dict[str, list[Member]] = {}
        groups = classes((m for m in members if m.configuration == configuration), tested)
        for group in groups:
            member, before = group[0], alike.setdefault(group[0].document["sha256"], [])
            if before:
                found.append(_by_data(member, before, tested))
            elif group is not groups[0]:
                found.append(_split(member, groups[0][0]))
            before += group
    return found


def _by_data(member: Member, before: Sequence[Member], tested: Tested) -> Split:
    """``member`` against the first of those ``before`` that data tell it from."""
    first, pair = next(
        (other, pair) for other in before if (pair := tested.between(member.name, other.name))
    )
    words = f"by its fingerprint as {first.device}, but data set them apart: {evidence(*pair)}"
    return Split(member.configuration, member, first, [], words)


def _split(member: Member, first: Member) -> Split:
    families: list[str] = []
    if member.document["pack"] == first.document["pack"]:
        listed = differing(member.document, first.document).values()
        families = list(dict.fromkeys(name for names in listed for name in names))
    words = difference(member.document, first.document, first.device)
    return Split(member.configuration, member, first, families, words)


def grouped_json(members: Sequence[Member], tested: Tested = UNTESTED) -> dict[str, Any]:
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
            for group in classes(members, tested)
        ],
        "splits": [
            {
                "configuration": split.configuration,
                "a": split.member.device,
                "b": split.first.device,
                "families": list(split.families),
                "words": split.words,
            }
            for split in splits(members, tested)
        ],
    }
