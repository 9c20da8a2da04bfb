"""Every question asked of the store: portable SQL with named parameters.

The same statements run through SQLAlchemy (store/database.py) and through the standard library
(store/readonly.py), which is why they are text and not SQLModel expressions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.errors import DamageError, InfraError, InputError
from orchestrator.queue.states import AttemptState, CellState, RunState
from orchestrator.store.digests import damage_of, damaged
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
    sha256_of,
)

Row = Mapping[str, Any]
Query = Callable[[str, Mapping[str, Any]], list[Row]]

RUN = "SELECT id, name, state, retry_infra, created FROM run"
CELL = (
    "SELECT c.run, c.id, c.position, c.slot, s.unit, c.model, c.file, c.inputs, c.condition,"
    " c.runtime, c.env_key, c.state, c.outcome, c.attempt, c.failures, c.digest"
    " FROM cell c LEFT JOIN slot s ON s.run = c.run AND s.name = c.slot"
)
ATTEMPT = (
    "SELECT id, run, cell, number, device, token, state, error_id, error, retryable, codes_valid,"
    " timing_valid, claimed, started, ended, hub, environment, result, offline, content, digest"
    " FROM attempt"
)
DEVICE = "SELECT name, device_class, emulated, identity, first_seen, last_seen, digest FROM device"
PACK = "SELECT nonce, run, device, created, manifest, digest FROM pack"
BASELINE = "SELECT key, model_sha256, inputs, environment, created, data, digest FROM baseline"


class Reader:
    """Read access through ``query``. Every method raises InfraError E-STORE-* when it fails.

    Rows are held against their digests (store/digests.py). Of many, a damaged one says so in its
    ``damage``, or to ``damage``, and costs itself only; one that was asked for raises DamageError
    E-STORE-DAMAGED.
    """

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
            raise InputError("E-RUN-UNKNOWN", "no run has been made yet", fix="see: assay run")
        # substr and not LIKE: names may hold LIKE's wildcards.
        found = self._query(
            f"{RUN} WHERE substr(id, 1, length(:id)) = :id ORDER BY id LIMIT 3", {"id": run_id}
        )
        exact = [row for row in found if row["id"] == run_id]
        if len(found) > 1 and not exact:
            raise InputError(
                "E-RUN-AMBIGUOUS",
                f"{run_id!r} fits several runs: {', '.join(row['id'] for row in found)}",
                fix="give more of the ID",
            )
        if not found or not run_id:
            raise InputError("E-RUN-UNKNOWN", f"no run {run_id!r}", fix="list them: assay status")
        return self._run((exact or found)[0])

    def frozen(self, run_id: str) -> Json:
        """The frozen matrix that ``create_run`` was given. Raises InputError E-FROZEN."""
        row = self._one(
            "SELECT id, name, retry_infra, created, frozen, digest FROM run WHERE id = :id", run_id
        )
        if damage := damage_of("run", row, f"run {run_id}"):
            raise InputError("E-FROZEN", damage.what, where=run_id, fix=damage.fix)
        try:
            return as_object(row["frozen"])
        except ValueError as error:
            raise InputError("E-FROZEN", f"the recorded run is damaged: {error}") from None

    def cells(self, run_id: str) -> list[CellInfo]:
        """All cells in plan order."""
        found = self._query(f"{CELL} WHERE c.run = :run ORDER BY c.position, c.id", {"run": run_id})
        return [cell_info(row) for row in found]

    def attempts(self, run_id: str) -> list[AttemptInfo]:
        """All attempts in order of their claim."""
        found = self._query(
            f"{ATTEMPT} WHERE run = :run ORDER BY claimed, cell, number", {"run": run_id}
        )
        files: dict[str, dict[str, Blob]] = {}
        for row in self._query(
            "SELECT x.attempt, x.role, x.sha256, f.size FROM attempt_artefact x"
            " JOIN artefact f ON f.sha256 = x.sha256 JOIN attempt a ON a.id = x.attempt"
            " WHERE a.run = :run ORDER BY x.role",
            {"run": run_id},
        ):
            files.setdefault(row["attempt"], {})[row["role"]] = Blob(row["sha256"], row["size"])
        return [attempt_info(row, files.get(row["id"], {})) for row in found]

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
        """The run's archives that are out, oldest first; an unreadable manifest is empty."""
        found = self._query(f"{PACK} WHERE run = :run ORDER BY created, nonce", {"run": run_id})
        return [info for row in found if (info := self._pack(row)).out]

    def pack(self, nonce: str) -> PackInfo | None:
        """The archive of that nonce, out or back; None when this store made none."""
        found = self._query(f"{PACK} WHERE nonce = :nonce", {"nonce": nonce})
        if not found:
            return None
        if damage := damage_of("pack", found[0], f"archive {nonce}"):
            raise damage
        return self._pack(found[0])

    def _pack(self, row: Row) -> PackInfo:
        out = self._query(
            "SELECT id, cell FROM attempt WHERE offline = :nonce AND state = :state ORDER BY cell",
            {"nonce": row["nonce"], "state": AttemptState.RUNNING.value},
        )
        try:
            manifest = as_object(row["manifest"])
        except ValueError:
            manifest = {}
        return PackInfo(
            row["nonce"],
            row["run"],
            row["device"],
            row["created"],
            manifest,
            out={attempt["id"]: attempt["cell"] for attempt in out},
        )

    def devices(self) -> list[DeviceInfo]:
        """Every unit ever seen, by name."""
        return [_device_info(row) for row in self._query(f"{DEVICE} ORDER BY name", {})]

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

    def fingerprints(
        self, *, every: bool = False, damage: dict[str, DamageError] | None = None
    ) -> list[FingerprintInfo]:
        """The newest fingerprint of each device and configuration, sorted by both.

        ``every``: with all earlier ones, the newest first. A damaged one is told to ``damage`` and
        left out; without it DamageError E-STORE-DAMAGED is raised.
        """
        newest = (
            " WHERE id = (SELECT MAX(id) FROM fingerprint g"
            " WHERE g.device = f.device AND g.configuration = f.configuration)"
        )
        found = self._query(
            "SELECT device, configuration, version, environment, sha256, document, created, digest"
            f" FROM fingerprint f{'' if every else newest}"
            " ORDER BY device, configuration, id DESC",
            {},
        )
        infos = []
        for row in found:
            what = f"the fingerprint of {row['device']} ({row['configuration']})"
            try:
                infos.append(_fingerprint_info(row, what))
            except DamageError as error:
                if damage is None:
                    raise
                damage[what] = error
        return infos

    def baseline_get(self, key: BaselineKey) -> Json | None:
        """What ``baseline_put`` stored under ``key``, None before that."""
        found = self._query(f"{BASELINE} WHERE key = :key", {"key": key.digest()})
        return _baseline(found[0]) if found else None

    def baseline_newest(self, model_sha256: str, inputs: Sequence[str]) -> Json | None:
        """The newest baseline of a model and its input files, whatever the environment."""
        found = self._query(
            f"{BASELINE} WHERE model_sha256 = :model ORDER BY created DESC",
            {"model": model_sha256},
        )
        for row in found:
            # The key says which inputs it is of: the column may be damaged.
            if row["key"] == BaselineKey(model_sha256, inputs, row["environment"]).digest():
                return _baseline(row)
        return None

    def verdict(self, run_id: str) -> Json | None:
        """The newest verdict document of the run, None before sign-off."""
        found = self._query(
            "SELECT run, created, document, digest FROM verdict WHERE run = :run"
            " ORDER BY id DESC LIMIT 1",
            {"run": run_id},
        )
        return _document("verdict", found[0], f"the verdict of {run_id}") if found else None

    def environment_data(self, sha256: str) -> Json:
        """The environment recorded under ``sha256``. Raises DamageError E-STORE-ROW as well."""
        row = self._one("SELECT data FROM environment WHERE sha256 = :id", sha256)
        try:
            data = as_object(row["data"])
            if sha256_of(data) == sha256:
                return data
        except ValueError as error:
            raise damaged(f"environment {sha256}", str(error)) from None
        raise damaged(f"environment {sha256}", "it has another hash")

    def _one(self, sql: str, id: str) -> Row:
        found = self._query(sql, {"id": id})
        if not found:
            raise DamageError("E-STORE-ROW", f"the store has no {id!r}")
        return found[0]

    def _run(self, row: Row) -> RunInfo:
        cells = dict.fromkeys(CellState, 0)
        outcomes: dict[AttemptState, int] = {}
        for group in self._query(
            "SELECT state, outcome, COUNT(*) AS n FROM cell WHERE run = :run"
            " GROUP BY state, outcome ORDER BY state, outcome",
            {"run": row["id"]},
        ):
            try:
                state, told = _standing(group)
            except ValueError:  # as a damaged cell counts
                state, told = CellState.DONE, AttemptState.INFRA_ERROR
            cells[state] += group["n"]
            if told is not None:
                outcomes[told] = outcomes.get(told, 0) + group["n"]
        damage = None
        try:
            state_of_run = RunState(row["state"])
        except ValueError as error:
            # Of no run that still goes on: whoever judges it or goes on with it reads more.
            state_of_run, damage = RunState.INTERRUPTED, damaged(f"run {row['id']}", str(error))
        return RunInfo(
            row["id"],
            str(row["name"]),
            state_of_run,
            row["retry_infra"],
            _number(row["created"]),
            cells,
            outcomes,
            damage,
        )


def _standing(row: Row) -> tuple[CellState, AttemptState | None]:
    """ValueError where one of them is none that there is."""
    outcome = row["outcome"]
    return CellState(row["state"]), None if outcome is None else AttemptState(outcome)


def cell_info(row: Row) -> CellInfo:
    """A row of ``CELL``."""
    what = f"cell {row['id']}"
    damage = damage_of("cell", row, what)
    state, outcome = CellState.DONE, None
    try:
        state, outcome = _standing(row)
    except ValueError as error:
        damage = damage or damaged(what, str(error))
    if damage:
        state, outcome = CellState.DONE, AttemptState.INFRA_ERROR
    texts = ("run", "id", "slot", "model", "file", "inputs", "condition", "runtime", "env_key")
    told: Json = {name: str(row[name]) for name in texts}
    told |= {name: row[name] for name in ("position", "unit", "attempt", "failures")}
    return CellInfo(**told, state=state, outcome=outcome, damage=damage)


BEGUN = ("id", "run", "cell", "number", "device", "token", "offline")
ENDED = ("error_id", "error", "started", "ended", "hub", "environment", "content")


def attempt_info(row: Row, artefacts: Mapping[str, Blob]) -> AttemptInfo:
    """A row of ``ATTEMPT`` and its files by role."""
    what = f"attempt {row['id']} ({row['cell']})"
    told: Json = {name: row[name] for name in BEGUN}
    try:
        if damage := damage_of("attempt", {**row, "artefacts": artefacts}, what):
            raise damage
        state = AttemptState(row["state"])
        result = None if row["result"] is None else as_object(row["result"])
    except (DamageError, ValueError) as error:
        damage = error if isinstance(error, DamageError) else damaged(what, str(error))
        told |= {**dict.fromkeys(ENDED), "error_id": damage.id, "error": str(damage)}
        told |= dict.fromkeys(("codes_valid", "timing_valid", "result"))
        told |= {"retryable": False, "artefacts": {}, "claimed": _number(row["claimed"])}
        told["device"] = None
        state = AttemptState.INFRA_ERROR
        return AttemptInfo(**told, state=state, damage=damage)
    told |= {name: row[name] for name in (*ENDED, "claimed")}
    told |= {name: _flag(row[name]) for name in ("codes_valid", "timing_valid")}
    return AttemptInfo(
        **told,
        state=state,
        retryable=bool(row["retryable"]),
        result=result,
        artefacts=artefacts,
        digest=row["digest"],
    )


def _device_info(row: Row) -> DeviceInfo:
    damage = damage_of("device", row, f"device {row['name']}")
    try:
        identity = as_object(row["identity"])
    except ValueError as error:
        identity, damage = {}, damage or damaged(f"device {row['name']}", str(error))
    return DeviceInfo(
        str(row["name"]),
        str(row["device_class"]),
        bool(row["emulated"]),
        identity,
        _number(row["first_seen"]),
        _number(row["last_seen"]),
        damage,
    )


def _fingerprint_info(row: Row, what: str) -> FingerprintInfo:
    document = _document("fingerprint", row, what)
    told = {name: value for name, value in row.items() if name != "digest"}
    return FingerprintInfo(**{**told, "document": document})


def _baseline(row: Row) -> Json:
    """What ``baseline_put`` was given."""
    return _document("baseline", row, "an FP32 baseline", "data")


def _document(table: str, row: Row, what: str, column: str = "document") -> Json:
    """The JSON object in ``column``. Raises DamageError E-STORE-DAMAGED."""
    if damage := damage_of(table, row, what):
        raise damage
    try:
        return as_object(row[column])
    except ValueError as error:
        raise damaged(what, str(error)) from None


def _flag(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _number(value: Any) -> float:
    """Of a column that may be damaged."""
    return float(value) if isinstance(value, int | float) else 0.0


def as_object(value: Any) -> Json:
    """A JSON column: SQLite hands it back as text, PostgreSQL as the value itself.

    ValueError unless it is an object.
    """
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"not a JSON object: {type(found).__name__}")
    return found
