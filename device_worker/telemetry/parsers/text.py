"""What all parsers share: their types, and numbers out of text that may be anything."""

from __future__ import annotations

import os
from typing import Callable, Dict, Iterator, Mapping, Optional, Tuple, Union

Raw = Mapping[str, Optional[str]]
Value = Union[None, int, float, str]
Values = Dict[str, Value]
Parser = Callable[[Raw], Values]

_DIGITS = 18
"""A longer number is no reading; Python itself refuses to convert very long ones."""
_OFF_C = -256.0


class Bare(float):
    """A temperature whose unit the text does not tell: for telemetry.plausible to make out."""


def integer(text: Optional[str], base: int = 10) -> Optional[int]:
    """The number that is all of the text, or None."""
    text = (text or "").strip()
    if not text.isascii() or len(text) > _DIGITS + 1 or "_" in text:
        return None
    try:
        return int(text, base)
    except ValueError:
        return None


def decimal(text: Optional[str]) -> Optional[float]:
    """As `integer`, for plain decimals; no exponents, infinities or NaN."""
    text = (text or "").strip()
    if len(text) > _DIGITS + 2 or not text.lstrip("+-").replace(".", "", 1).isdigit():
        return None
    try:
        return float(text)
    except ValueError:
        return None


def degrees(value: Optional[float]) -> Optional[float]:
    """Of a text that says itself that it counts in degrees Celsius; -256 stands for "off"."""
    return None if value is None or value == _OFF_C else round(value, 3)


def bare(value: Optional[float]) -> Optional[Bare]:
    return None if value is None else Bare(value)


def plain(text: Optional[str]) -> Optional[str]:
    """One trimmed line of text, None when there is none. NUL ends strings in device trees."""
    words = " ".join((text or "").replace("\0", " ").split())
    return "".join(c for c in words if c.isprintable())[:400] or None


def by_folder(raw: Raw) -> Iterator[Tuple[str, Dict[str, Optional[str]]]]:
    """Each folder's path and its files: name -> text, in the order in which they were given."""
    folders: Dict[str, Dict[str, Optional[str]]] = {}
    for path, text in raw.items():
        folder, name = os.path.split(path)
        folders.setdefault(folder, {})[name] = text
    return iter(folders.items())


def first(raw: Raw) -> Optional[str]:
    """The first text that could be read: a command's output, or of several places one."""
    return next((text for text in raw.values() if text is not None), None)
