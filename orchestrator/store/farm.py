"""The name under which this store's leases are known on devices: one per store, for ever."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from orchestrator.store.db_errors import file_fault

FARM = "farm-id"
"""The file in a store's folder that holds it."""


def farm_id(root: Path) -> str:
    """Random, made once; two farms that share a device tell each other apart by it."""
    path = root / FARM
    try:
        if not path.exists():
            part = root / f"{FARM}.{os.getpid()}.{secrets.token_hex(4)}"
            part.write_text(f"farm-{secrets.token_hex(8)}\n")
            try:
                os.link(part, path)  # fails where another coordinator was first
            except FileExistsError:
                pass
            finally:
                part.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise file_fault(error, path) from error
