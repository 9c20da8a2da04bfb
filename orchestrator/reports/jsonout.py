"""The document as JSON text: same document, same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dumps(document: Mapping[str, Any]) -> str:
    """Sorted keys, two-space indent, UTF-8 text, a final newline.

    Raises ValueError for NaN or infinity, which JSON cannot hold: an unknown number is ``null``.
    """
    return (
        json.dumps(document, allow_nan=False, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    )
