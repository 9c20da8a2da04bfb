"""The document as JSON text: same document, same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from orchestrator.reports.format import CONTROL


def dumps(document: Mapping[str, Any]) -> str:
    """Sorted keys, two-space indent, UTF-8 text without control characters, a final newline.

    Raises ValueError for NaN or infinity, which JSON cannot hold: an unknown number is ``null``.
    """
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, indent=2, sort_keys=True)
    return CONTROL.sub(_escaped, text) + "\n"


def _escaped(found: re.Match[str]) -> str:
    """Between the quotes of a string, the only place where JSON text can have such a character."""
    return f"\\u{ord(found[0]):04x}"
