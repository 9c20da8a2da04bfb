"""Every question asked of the store: portable SQL with named parameters.

The same statements run through SQLAlchemy (store/database.py) and through the standard library
(store/glance.py), which is why they are text and not SQLModel expressions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.errors import InfraError, InputError
from orchestrator.queue.states import AttemptState, CellState, RunState
from orchestrator.store.records import (
    AttemptInfo,
    BaselineKey,
    Blob,
    CellInfo,
    Claim,
    DeviceInfo,
    FingerprintInfo,
    Json,
    LeaseInfo,
    Owner,
    PackInfo,
    RunInfo,
)

Row = Mapping[str, Any]
Query = Callable[[str, Mapping[str, Any]], list[Row]]

RUN = "SELECT id, name, state, retry_infra, created FROM run"
CELL = (
    "SELECT c.run, c.id, c.position, c.slot, s.unit, c.model, c.file, c.inputs, c.condition,"
    " c.runtime, c.env_key, c.state, c.outcome, c.attempt, c.failures"
    " FROM cell c JOIN slot s ON s.run = c.run AND s.name = c.slot"
)
ATTEMPT = (
    "SELECT id, run, cell, number, device, token, state, error_id, error, retryable, codes_valid,"
    " timing_valid, claimed, started, ended, hub, environment, {result} AS result, offline"
    " FROM attempt"
)
PACK = "SELECT nonce, run, device, created, manifest FROM pack"


class Reader:
    """Read access through ``query``. Every method raises InfraError E-STORE-* when it fails."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def runs(self, limit: int = 20) -> list[RunInfo]:
        """The newest runs, newest first."""
        found = self._query(f"{RUN} ORDER BY created DESC, id DESC LIMIT :limit", {"limit": limit})
        return [self._run(row) for row in found]

    def run(self, run_id: str | None = None) -> RunInfo:
        """The run whose ID is, or alone begins with, ``run_id``; the newest one for None.

        Raises InputError E-RUN-UNKNOWN, E-RUN-AMBIGUOUS.
        """
        if run_id is None:
            if newest := self.runs(1):
                return newest[0]
            raise InputError("E-RUN-UNKNOWN", "no run has been made yet", mend="see: assay run")
        # substr and not LIKE: names may hold LIKE's wildcards.
        found = self._query(
            f"{RUN} WHERE substr(id, 1, length(:id)) = :id ORDER BY id LIMIT 3", {"id": run_id}
        )
        exact = [row for row in found if row["id"] == run_id]
        if len(found) > 1 and not exact:
            raise InputError(
                "E-RUN-AMBIGUOUS",
                f"{run_id!r} fits several runs: {', '.join(row['id'] for row in found)}",
                mend="give more of the ID",
            )
        if not found or not run_id:
            raise InputError("E-RUN-UNKNOWN", f"no run {run_id!r}", mend="list them: assay status")
        return self._run((exact or found)[0])

    def frozen(self, run_id: str) -> Json:
        """The frozen matrix that ``create_run`` was given."""
        return as_json(self._one("SELECT frozen FROM run WHERE id = :id", run_id)["frozen"])

    def cells(self, run_id: str) -> list[CellInfo]:
        """All cells in plan order."""
        found = self._query(f"{CELL} WHERE c.run = :run ORDER BY c.position, c.id", {"run": run_id})
        return [cell_info(row) for row in found]

    def attempts(self, run_id: str, *, results: bool = True) -> list[AttemptInfo]:
        """All attempts in order of their claim; ``results=False`` leaves ``result`` None."""
        sql = ATTEMPT.format(result="result" if results else "NULL")
        found = self._query(
            f"{sql} WHERE run = :run ORDER BY claimed, cell, number", {"run": run_id}
        )
        files: dict[str, dict[str, Blob]] = {}
        for row in self._query(
            "SELECT x.attempt, x.role, x.sha256, f.size FROM attempt_artefact x"
            " JOIN artefact f ON f.sha256 = x.sha256 JOIN attempt a ON a.id = x.attempt"
            " WHERE a.run = :run ORDER BY x.role",
            {"run": run_id},
        ):
            files.setdefault(row["attempt"], {})[row["role"]] = Blob(row["sha256"], row["size"])
        return [_attempt_info(row, files.get(row["id"], {})) for row in found]

    def claim_of(self, attempt: str) -> Claim:
        """What the attempt was claimed as. Raises InfraError E-ATTEMPT-UNKNOWN."""
        found = self._query(
            "SELECT run, cell, number, device, token FROM attempt WHERE id = :id", {"id": attempt}
        )
        if not found or found[0]["device"] is None:
            raise InfraError("E-ATTEMPT-UNKNOWN", f"no attempt {attempt!r}", retryable=False)
        row = found[0]
        (cell,) = self._query(
            f"{CELL} WHERE c.run = :run AND c.id = :cell", {"run": row["run"], "cell": row["cell"]}
        )
        return Claim(attempt, row["number"], row["device"], row["token"], cell_info(cell))

    def packs(self, run_id: str) -> list[PackInfo]:
        """The run's archives that are out, oldest first."""
        found = self._query(f"{PACK} WHERE run = :run ORDER BY created, nonce", {"run": run_id})
        return [info for row in found if (info := self._pack(row)).out]

    def pack(self, nonce: str) -> PackInfo | None:
        """The archive of that nonce, out or back; None when this store made none."""
        found = self._query(f"{PACK} WHERE nonce = :nonce", {"nonce": nonce})
        return self._pack(found[0]) if found else None

    def _pack(self, row: Row) -> PackInfo:
        out = self._query(
            "SELECT id, cell FROM attempt WHERE offline = :nonce AND state = :state ORDER BY cell",
            {"nonce": row["nonce"], "state": AttemptState.RUNNING.value},
        )
        return PackInfo(
            **{**row, "manifest": as_json(row["manifest"])},
            out={attempt["id"]: attempt["cell"] for attempt in out},
        )

    def devices(self) -> list[DeviceInfo]:
        """Every unit ever seen, by name."""
        return [
            DeviceInfo(
                row["name"],
                row["device_class"],
                bool(row["emulated"]),
                as_json(row["identity"]),
                row["first_seen"],
                row["last_seen"],
            )
            for row in self._query("SELECT * FROM device ORDER BY name", {})
        ]

    def leases(self) -> list[LeaseInfo]:
        """The leases held now, by device."""
        return [
            LeaseInfo(
                row["device"],
                row["token"],
                row["counter"],
                Owner(
                    row["coordinator"], row["host"], row["boot_id"], row["pid"], row["pid_start"]
                ),
                row["granted"],
            )
            for row in self._query(
                "SELECT * FROM lease WHERE coordinator IS NOT NULL ORDER BY device", {}
            )
        ]

    def fingerprints(self, *, every: bool = False) -> list[FingerprintInfo]:
        """The newest of each device and configuration, by both; ``every``: with all before it,

        the newest first.
        """
        newest = (
            " WHERE id = (SELECT MAX(id) FROM fingerprint g"
            " WHERE g.device = f.device AND g.configuration = f.configuration)"
        )
        found = self._query(
            "SELECT device, configuration, version, environment, sha256, document, created"
            f" FROM fingerprint f{'' if every else newest}"
            " ORDER BY device, configuration, id DESC",
            {},
        )
        return [FingerprintInfo(**{**row, "document": as_json(row["document"])}) for row in found]

    def baseline_get(self, key: BaselineKey) -> Json | None:
        """What ``baseline_put`` stored under ``key``, None before that."""
        found = self._query("SELECT data FROM baseline WHERE key = :key", {"key": key.digest()})
        return as_json(found[0]["data"]) if found else None

    def baseline_newest(self, model_sha256: str, inputs: Sequence[str]) -> Json | None:
        """The newest baseline of a model and its input files, whatever the environment."""
        found = self._query(
            "SELECT inputs, data FROM baseline WHERE model_sha256 = :model ORDER BY created DESC",
            {"model": model_sha256},
        )
        for row in found:
            answered: Any = as_json(row["inputs"])
            if answered == list(inputs):
                return as_json(row["data"])
        return None

    def verdict(self, run_id: str) -> Json | None:
        """The newest verdict document of the run, None before sign-off."""
        found = self._query(
            "SELECT document FROM verdict WHERE run = :run ORDER BY id DESC LIMIT 1",
            {"run": run_id},
        )
        return as_json(found[0]["document"]) if found else None

    def environment_data(self, sha256: str) -> Json:
        """The environment recorded under ``sha256``. Raises InfraError E-STORE-ROW."""
        return as_json(self._one("SELECT data FROM environment WHERE sha256 = :id", sha256)["data"])

    def _one(self, sql: str, id: str) -> Row:
        found = self._query(sql, {"id": id})
        if not found:
            raise InfraError("E-STORE-ROW", f"the store has no {id!r}", retryable=False)
        return found[0]

    def _run(self, row: Row) -> RunInfo:
        cells = dict.fromkeys(CellState, 0)
        outcomes: dict[AttemptState, int] = {}
        for group in self._query(
            "SELECT state, outcome, COUNT(*) AS n FROM cell WHERE run = :run"
            " GROUP BY state, outcome ORDER BY state, outcome",
            {"run": row["id"]},
        ):
            cells[CellState(group["state"])] += group["n"]
            if group["outcome"] is not None:
                outcomes[AttemptState(group["outcome"])] = group["n"]
        return RunInfo(
            row["id"],
            row["name"],
            RunState(row["state"]),
            row["retry_infra"],
            row["created"],
            cells,
            outcomes,
        )


def cell_info(row: Row) -> CellInfo:
    """A row of ``CELL``."""
    outcome = row["outcome"]
    typed = {
        "state": CellState(row["state"]),
        "outcome": None if outcome is None else AttemptState(outcome),
    }
    return CellInfo(**{**row, **typed})


def _attempt_info(row: Row, artefacts: Mapping[str, Blob]) -> AttemptInfo:
    typed = {
        "state": AttemptState(row["state"]),
        "retryable": bool(row["retryable"]),
        "codes_valid": _flag(row["codes_valid"]),
        "timing_valid": _flag(row["timing_valid"]),
        "result": None if row["result"] is None else as_json(row["result"]),
    }
    return AttemptInfo(**{**row, **typed}, artefacts=artefacts)


def _flag(value: Any) -> bool | None:
    return None if value is None else bool(value)


def as_json(value: Any) -> Json:
    """A JSON column: SQLite hands it back as text, PostgreSQL as the value itself."""
    found: Json = json.loads(value) if isinstance(value, str) else value
    return found
