"""Keeping fingerprints. They are read with ``Reader.fingerprints``."""

from __future__ import annotations

import time

from sqlalchemy import insert

from orchestrator.store.database import Store
from orchestrator.store.digests import sealed
from orchestrator.store.records import Json
from orchestrator.store.tables import Fingerprint


def save(
    store: Store, device: str, configuration: str, version: str | None, facts: Json, document: Json
) -> None:
    """Keep a fingerprint ``document``, whose ``sha256`` is its identity.

    ``facts``: the environment it was taken in. ``upsert_device`` comes first. Raises InfraError
    E-STORE-*.
    """
    environment = store.environment(facts)
    row = {
        "device": device,
        "configuration": configuration,
        "version": version,
        "environment": environment,
        "sha256": document["sha256"],
        "document": document,
        "created": time.time(),
    }
    with store.database.write() as connection:
        connection.execute(insert(Fingerprint).values(**sealed("fingerprint", row)))
