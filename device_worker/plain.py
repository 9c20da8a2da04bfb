"""JSON lines within limits: what is longer, deeper, larger or no plain data is refused.

Python 3.9 syntax, standard library only: this module is imported on both sides.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List

MAX_LINE = 1 << 20
MAX_DEPTH = 32
"""Levels of JSON: four times what any message has."""
MAX_NUMBER = (1 << 63) - 1
"""Nothing that is measured, counted or dated is larger."""


class WireError(ValueError):
    """A message does not have the agreed form."""


def encode(message: Dict[str, Any]) -> bytes:
    """One line, without its newline. NaN is refused: JSON has none."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()


def decode(line: bytes, limit: int = MAX_LINE) -> Dict[str, Any]:
    """An object of plain JSON data, or WireError.

    At most ``limit`` bytes and MAX_DEPTH levels; numbers are finite and no larger than
    MAX_NUMBER, texts can be encoded.
    """
    if len(line) > limit:
        raise WireError(f"longer than {limit} bytes: {line[:80]!r}")
    try:
        message = json.loads(
            line, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
    except RecursionError:
        raise WireError(f"nested too deep: {line[:80]!r}") from None
    except WireError:
        raise
    except ValueError as error:
        raise WireError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise WireError(f"not an object: {line[:80]!r}")
    check_plain(message)
    return message


def _integer(text: str) -> int:
    # Not by int() first: of a text of millions of digits it takes minutes.
    if len(text) > 20 or abs(int(text)) > MAX_NUMBER:
        raise WireError(f"a number out of range: {text[:40]}")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) <= MAX_NUMBER:
        raise WireError(f"a number out of range: {text[:40]}")
    return value


def _constant(text: str) -> float:
    raise WireError(f"{text} is no number")


def check_plain(data: Any) -> None:
    """Check that a value is what `decode` would give.

    Raises WireError for what is nested too deep, a number out of range, a text that no encoding can
    take, an object that JSON does not have.
    """
    level: List[Any] = [data]
    for _ in range(MAX_DEPTH):
        below: List[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            else:
                _check_scalar(value)
        if not below:
            return
        level = below
    raise WireError(f"nested deeper than {MAX_DEPTH} levels")


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise WireError(f"a text with half a character: {value[:40]!r}") from None
    elif isinstance(value, (int, float)):
        if not abs(value) <= MAX_NUMBER:  # NaN is no less than anything
            raise WireError("a number out of range")
    elif value is not None:
        raise WireError(f"a {type(value).__name__} is no plain data")
