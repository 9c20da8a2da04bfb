"""Which licence every part of a bundle has, as its own package says."""

from __future__ import annotations

import email.parser
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FORMAT = re.compile(r"^Format(-Specification)?:", re.MULTILINE)
_DEP5 = re.compile(r"^License:[ \t]*(\S.*)$", re.MULTILINE)
_NOTICE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|ThirdParty)", re.IGNORECASE)
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.-]+[A-Za-z0-9])")


@dataclass(frozen=True)
class Part:
    """``licences``: as stated, none where only a text is given; ``files``: below the bundle."""

    name: str
    version: str
    source: str
    licences: tuple[str, ...]
    files: tuple[str, ...]


def debian_part(name: str, version: str, unpacked: Path, bundle: Path) -> Part:
    """Copies the package's copyright file. Raises ValueError when it brings none."""
    text = unpacked / "usr/share/doc" / name / "copyright"
    if not text.is_file():
        raise ValueError(f"Debian's {name} has no copyright file")
    target = bundle / "licences" / "debian" / f"{name}.txt"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(text, target)
    said = text.read_text(encoding="utf-8", errors="replace")
    # Old copyright files have no fields, but point to the texts that every Debian system has.
    names = sorted(set((_DEP5 if _FORMAT.search(said) else _COMMON).findall(said)))
    return Part(name, version, "debian", tuple(names), (target.relative_to(bundle).as_posix(),))


def wheel_part(info: Path, bundle: Path) -> Part:
    """``info``: the .dist-info folder. Copies METADATA and every licence or notice in or beside it.

    Vendored parts of a wheel state theirs in such files too.
    """
    metadata = (info / "METADATA").read_text(encoding="utf-8", errors="replace")
    fields = email.parser.HeaderParser().parsestr(metadata)
    name, version = str(fields["Name"]), str(fields["Version"])
    target = bundle / "licences" / "wheels" / name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(info / "METADATA", target / "METADATA")
    package = info.parent / name.replace("-", "_")
    for path in sorted((*info.rglob("*"), *package.glob("*"))):
        if path.is_file() and _NOTICE.search(path.name) and path.suffix != ".py":
            place = path.relative_to(info.parent).as_posix().replace("/", "_")
            shutil.copyfile(path, target / place)
    files = tuple(p.relative_to(bundle).as_posix() for p in sorted(target.iterdir()))
    return Part(name, version, "wheel", _stated(fields.items()), files)


def _stated(fields: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    of = {key: [v for k, v in fields if k == key] for key, _ in fields}
    if of.get("License-Expression"):
        return (of["License-Expression"][0],)
    classes = [c.rpartition("::")[2].strip() for c in of.get("Classifier", ()) if "License" in c]
    # Older wheels put the whole text into this field.
    short = [text for text in of.get("License", ()) if "\n" not in text and text != "UNKNOWN"]
    return tuple(dict.fromkeys(classes or short))
