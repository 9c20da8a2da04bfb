"""The .npy files that a store keeps, read as data: nothing is unpickled, whoever wrote them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import DamageError


def array_of(data: bytes, what: str) -> NDArray[Any]:
    """The array in ``data``. Raises DamageError E-ARTEFACT-FORMAT naming ``what``."""
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # whatever NumPy, zipfile and tokenize raise for garbage
        raise malformed(what, f"no .npy file: {error}") from error
    if not isinstance(loaded, np.ndarray) or loaded.dtype.hasobject:
        raise malformed(what, "no .npy file of plain numbers")
    return loaded


def malformed(what: str, why: str) -> DamageError:
    return DamageError(
        "E-ARTEFACT-FORMAT",
        f"{what} has not the agreed form: {why}",
        fix="whatever wrote it was faulty; run the cell again",
    )
