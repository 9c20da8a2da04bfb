"""`assay ingest`: everything is verified before anything is stored; all of it is, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from device_worker import messages, plain, wire
from device_worker.archive import (
    DOCUMENT_LIMIT,
    RESULT,
    Answer,
    Manifest,
    PackedJob,
    Result,
    seal,
    sha256_of,
)
from device_worker.errors import one_line
from device_worker.scratch import scratch
from orchestrator.coordinator.jobs import declared, record
from orchestrator.errors import (
    AssayError,
    DeadlineError,
    InfraError,
    InputError,
    ModelError,
    NotAvailableError,
)
from orchestrator.fanout.start_gate import unmet
from orchestrator.matrix.inventory import bundle_name
from orchestrator.offline.check import check_answers, check_device, expected_files, passing
from orchestrator.offline.unpack import form, unpack
from orchestrator.queue.states import CellState
from orchestrator.results.check import Asked
from orchestrator.results.door import check
from orchestrator.results.finished import Failure, Finished, shown
from orchestrator.runs.run import Run
from orchestrator.store import packs
from orchestrator.store.artefacts import put_and_commit
from orchestrator.store.database import Store
from orchestrator.store.records import Json


@dataclass(frozen=True)
class Ingested:
    """``cells``: cell -> (outcome of the attempt, the cell's state now). ``left``: not done yet.

    ``untold``: names under the unit's ``identity`` that could not be compared.
    """

    run: str
    device: str
    nonce: str
    cells: Mapping[str, tuple[str, CellState]]
    left: int
    untold: tuple[str, ...]


def ingest(store: Store, path: Path) -> Ingested:
    """Verify the result archive at ``path`` and store its attempts, marked offline.

    Raises InputError E-INGEST-* (nothing is stored then), InfraError E-STORE-*.
    """
    with scratch("ingest") as made:
        folder = Path(made)
        received = _Received(store, path)
        unpack(path, folder, received.expect)
        return received.keep(folder)


class _Received:
    """One archive: first its document against what left, then its files against the document."""

    def __init__(self, store: Store, path: Path) -> None:
        self._store, self._path = store, path

    def expect(self, document: bytes) -> dict[str, int]:
        """Check the document; the files that must come with it (sha256 -> bytes)."""
        try:
            data = plain.decode(document, DOCUMENT_LIMIT)
            if data.get("schema") != RESULT:
                raise wire.WireError(f"its schema is not {RESULT}")
            result = wire.load(Result, data)
            messages.check_environment(result.environment)
            for answer in result.answers:
                if answer.result is not None:
                    messages.check_environment(answer.result.environment)
            sealed = seal(result.manifest_sha256, data)
        except (ValueError, RecursionError) as error:
            raise form(self._path, f"its document cannot be read: {error}") from None
        left = self._left(result.nonce)
        if result.manifest_sha256 != sha256_of(left):
            raise self._hash("the manifest it answers is not the one that was packed")
        if result.seal != sealed:
            raise self._hash("the document was changed after it was written")
        self._result, self._manifest = result, wire.load(Manifest, left)
        if result.worker_sha256 != self._manifest.worker.sha256:
            raise self._hash("another worker ran than was packed")
        check_answers(result.answers, self._manifest)
        run = Run(self._store, self._manifest.run)
        self._untold = self._check_device(result, run)
        cells = {cell.id: cell for cell in run.cells}
        self._outputs = {p.cell: declared(run.frozen, cells[p.cell]) for p in self._manifest.jobs}
        return expected_files(result.answers, self._manifest, self._outputs)

    def keep(self, folder: Path) -> Ingested:
        """Check the files in ``folder`` and store everything."""
        manifest, store = self._manifest, self._store
        pairs = list(zip(self._result.answers, manifest.jobs, strict=True))
        for answer, packed in pairs:
            with passing(packed.cell):
                asked = Asked(packed.job, manifest.device, 0, self._outputs[packed.cell])
                check(_finished(answer, packed, manifest, folder), asked)

        def both() -> dict[str, CellState]:
            records = {
                answer.attempt: record(_finished(answer, packed, manifest, folder), store.artefacts)
                for answer, packed in pairs
            }
            return packs.finish(store, manifest.nonce, records)

        try:
            settled = put_and_commit(both)
        except InfraError as error:
            if error.id != "E-LEASE-STALE":
                raise
            raise self._gone() from None  # somebody else ingested it or took it back meanwhile
        cells = {p.cell: (a.outcome, settled[a.attempt]) for a, p in pairs}
        left = sum(c.state is not CellState.DONE for c in store.cells(manifest.run))
        return Ingested(manifest.run, manifest.device, manifest.nonce, cells, left, self._untold)

    def _left(self, nonce: str) -> Json:
        """The manifest that left with ``nonce``, if it is out."""
        info = self._store.pack(nonce)
        if info is None:
            raise InputError(
                "E-INGEST-NONCE",
                f"no archive with the nonce {nonce[:8]!r} left from this store",
                where=str(self._path),
                fix="name the store that packed it with --store",
            )
        if len(info.out) != len(info.manifest["jobs"]):
            raise self._gone()
        return info.manifest

    def _check_device(self, result: Result, run: Run) -> tuple[str, ...]:
        unit = self._manifest.device
        results = [a.result for a in result.answers if a.result is not None]
        return check_device(
            result, results, run.frozen.inventory.device(unit), run.devices.get(unit)
        )

    def _gone(self) -> InputError:
        return InputError(
            "E-INGEST-DUPLICATE",
            "its cells are not out: it was ingested before, or taken back with --cancel",
            where=str(self._path),
            fix="see: assay logs",
        )

    def _hash(self, what: str) -> InputError:
        return InputError(
            "E-INGEST-HASH",
            f"not stored: {what}",
            where=str(self._path),
            fix="copy the archive again; if that does not help, run the cells again",
        )


def _finished(answer: Answer, packed: PackedJob, manifest: Manifest, folder: Path) -> Finished:
    """The answer as a hub would have delivered it."""
    gate, job = packed.gate, packed.job
    plain = Finished(
        attempt=answer.attempt,
        device=manifest.device,
        token=0,
        started_unix=answer.started_unix,
        ended_unix=answer.ended_unix,
    )
    if answer.result is None:
        return replace(plain, failure=Failure.of(_error(answer, manifest.device)))
    notes: tuple[str, ...] = ()
    if (gate.max_start_c, job.ceiling_c, gate.min_battery) != (None, None, None):
        found = unmet(
            answer.start,
            max_start_c=gate.max_start_c,
            ceiling_c=job.ceiling_c,
            min_battery=gate.min_battery,
        )
        notes = tuple(u.note for u in found if u.note)
    return replace(
        plain,
        result={
            **wire.dump(answer.result),
            "clock_offset_s": None,
            "recovered": None,
            "bundle": answer.bundle
            and {"name": bundle_name(packed.python), "sha256": answer.bundle},
        },
        files={role: (folder / blob.sha256).read_bytes() for role, blob in answer.files.items()},
        timing_notes=notes,
    )


def _error(answer: Answer, device: str) -> AssayError:
    """As a coordinator makes it of a worker's message (orchestrator.devices.worker)."""
    code, what = answer.code or "E-WORKER-ERROR", shown(one_line(answer.what))
    fix = shown(one_line(answer.mend)) if answer.mend else None
    match answer.outcome:
        case "model_error":
            return ModelError(code, what, where=device, fix=fix)
        case "not_available":
            return NotAvailableError(code, what, where=device, fix=fix)
        case "timeout":
            return DeadlineError(code, what, where=device, fix=fix)
        case _:
            return InfraError(code, what, where=device, fix=fix)
