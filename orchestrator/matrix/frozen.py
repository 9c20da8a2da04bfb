"""A matrix and all it refers to as plain JSON: what a run keeps, so that resume needs no YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.errors import InputError
from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.loader import sha256_path
from orchestrator.matrix.model import Matrix

M = TypeVar("M", bound=BaseModel)
FROZEN_VERSION = 1


@dataclass(frozen=True)
class Thawed:
    """``policy``: plain JSON for signoff's own model, or None. ``files``: path → sha256."""

    matrix: Matrix
    inventory: Inventory
    policy: dict[str, Any] | None
    files: dict[str, str]


def freeze(matrix: Matrix, inventory: Inventory, policy: BaseModel | None) -> dict[str, Any]:
    """Plain JSON with absolute paths and the sha256 of every model and input file.

    An image folder's sha256 covers the names and bytes of all its files. Raises InputError
    E-FILE-READ.
    """
    return {
        "version": FROZEN_VERSION,
        "matrix": _plain(matrix),
        "inventory": _plain(inventory),
        "policy": None if policy is None else _plain(policy),
        "files": {str(path): sha256_path(path) for path in matrix.paths()},
    }


def thaw(data: Mapping[str, Any]) -> Thawed:
    """The inverse of `freeze`. Raises InputError E-FROZEN for anything else."""
    if data.get("version") != FROZEN_VERSION:
        raise InputError(
            "E-FROZEN",
            f"this run was recorded in form {data.get('version')!r}, not {FROZEN_VERSION}",
            fix="resume it with the version of assay that started it",
        )
    try:
        return Thawed(
            _model(Matrix, data["matrix"]),
            _model(Inventory, data["inventory"]),
            data["policy"],
            dict(data["files"]),
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise InputError("E-FROZEN", f"the recorded run is damaged: {error}") from None


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True)


def _model(cls: type[M], data: Any) -> M:
    return cls.model_validate_json(json.dumps(data))
