"""Store → evidence → attribution: why two rows of a run differ, file by file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache

from orchestrator.conditions import CLEAN
from orchestrator.diagnosis.evidence import Evidence, Guilty, Side
from orchestrator.diagnosis.evidence_side import side
from orchestrator.diagnosis.rules import attribute
from orchestrator.diagnosis.signature import Signature, signature
from orchestrator.errors import AssayError, DamageError, InputError, NotAvailableError
from orchestrator.fingerprint.applicability import unreached
from orchestrator.fingerprint.describe import Document
from orchestrator.fingerprint.provenance import Prints
from orchestrator.fingerprint.relevant import apart, relevant
from orchestrator.matrix.runtime import runtime_spec
from orchestrator.runs.observations import observation_or_error, truth_of
from orchestrator.runs.run import Run
from orchestrator.store.database import Store
from orchestrator.store.records import AttemptInfo, CellInfo, Json
from orchestrator.variance.answers import Answers, read
from orchestrator.variance.factors import Factors, changed, factors
from orchestrator.variance.intervals import rate
from orchestrator.variance.observation import Observation, Truth
from orchestrator.variance.tasks import TaskError

File = tuple[str, str, str]
"""Model, file, input set."""


@dataclass(frozen=True, eq=False)
class Answered:
    """One row's answer to one file, and what is known of where it came from.

    ``probed``: the newest fingerprint that speaks for it; ``stale``: why none does, though some of
    its device, runtime and kernels are stored.
    """

    attempt: AttemptInfo
    answers: Answers
    factors: Factors
    side: Side
    probed: Document | None
    stale: str | None


KEPT = 4
"""Answers that are kept for the next question: pairs of one file share their rows."""


class Explainer:
    """Of one run. Reads what it is asked for; for the life of ``store``."""

    def __init__(self, store: Store, run_id: str | None) -> None:
        """Raises InputError E-RUN-UNKNOWN, E-RUN-AMBIGUOUS, E-FROZEN."""
        self.run = Run(store, run_id)
        self._frozen = self.run.frozen
        self._cells: dict[tuple[File, str], list[CellInfo]] = {}
        for cell in self.run.cells:
            key = (cell.model, cell.file, cell.inputs), f"{self.run.unit(cell)}/{cell.runtime}"
            self._cells.setdefault(key, []).append(cell)
        self._truth = lru_cache(maxsize=1)(self._known)
        self._answered = lru_cache(maxsize=KEPT)(self._look)
        damage: dict[str, DamageError] = {}
        self._prints = Prints(store.fingerprints(every=True, damage=damage))
        self.run.damaged.update(damage)

    @property
    def damaged(self) -> Mapping[str, AssayError]:
        """What it could not read, cells and "PART of MODEL on INPUTS" -> why; the rest answers."""
        return self.run.damaged

    @property
    def rows(self) -> list[str]:
        """All rows, as "device/runtime", in plan order."""
        return list(dict.fromkeys(row for _, row in self._cells))

    def pairs(self, a: str, b: str) -> list[tuple[str, str]]:
        """Rows to compare: those named, or those of two devices under each runtime of both.

        Raises InputError E-ROW-UNKNOWN.
        """
        found = []
        for left in self._named(a):
            for right in self._named(b):
                runtimes = [row.partition("/")[2] for row in (left, right)]
                if left != right and ("/" in a or "/" in b or runtimes[0] == runtimes[1]):
                    found.append((left, right))
        return found

    def files(self, pattern: str = "*") -> list[File]:
        """Model files whose "model.file" or model matches."""
        known = dict.fromkeys(file for file, _ in self._cells)
        return [f for f in known if any(fnmatchcase(n, pattern) for n in (f[0], f"{f[0]}.{f[1]}"))]

    def planned(self, file: File, row: str) -> bool:
        """Whether the row was to answer the file at all: a runtime takes files of its format."""
        return (file, row) in self._cells

    def explain(
        self,
        file: File,
        a: str,
        b: str,
        *,
        guilty: tuple[Guilty, ...] = (),
        plan_matters: bool | None = None,
    ) -> Json:
        """Why ``a`` and ``b`` answer ``file`` alike or otherwise, as JSON data.

        ``guilty``, ``plan_matters``: as in Evidence, if that was looked for.

        Raises NotAvailableError E-ROW-UNANSWERED, also where the answer is damaged; TaskError.
        """
        left, right = self._answered(file, a), self._answered(file, b)
        found = signature(left.answers, right.answers)
        model = self._frozen.staging.models[f"{file[0]}.{file[1]}"]
        evidence = self._evidence(file, left, right, found)
        told = attribute(replace(evidence, guilty=guilty, plan_matters=plan_matters))
        return {
            "model": file[0],
            "file": file[1],
            "inputs": file[2],
            "model_sha256": model.sha256,
            "a": a,
            "b": b,
            "attempts": [left.attempt.id, right.attempt.id],
            "mechanism": str(told.mechanism),
            "factors": None if told.factors is None else list(told.factors),
            "confidence": told.confidence,
            "because": [*told.because, *filter(None, (left.stale, right.stale))],
            "blamed": told.blamed,
            "fix": told.fix,
            "changed": _apart(left.side, right.side),
            "difference": _difference(found),
        }

    def _evidence(self, file: File, left: Answered, right: Answered, found: Signature) -> Evidence:
        key = f"{file[0]}.{file[1]}"
        model, tensor = self._frozen.staging.models[key], f"{key}/{file[2]}"
        a, b, families, unmet = left.side, right.side, None, {}
        if left.probed is not None and right.probed is not None:
            of_a, of_b = apart(left.probed, right.probed)
            a, b = replace(a, arithmetic=of_a), replace(b, arithmetic=of_b)
            operators = {*model.operators, *a.operators, *b.operators}
            dtype = self._frozen.staging.tensors[tensor].dtype
            families = relevant(of_a, operators, dtype)
            known = model.operators, model.families
            unmet = unreached(families, left.probed, right.probed, *known)
        return Evidence(
            a,
            b,
            found,
            changed(left.factors, right.factors),
            saturable=model.saturable,
            families=families,
            unreached=unmet,
        )

    def _named(self, name: str) -> list[str]:
        rows = [r for r in self.rows if name in (r, r.partition("/")[0])]
        if not rows:
            raise InputError(
                "E-ROW-UNKNOWN",
                f"run {self.run.id} has no row {name!r}",
                fix=f"rows: {', '.join(self.rows)}",
            )
        return rows

    def _look(self, file: File, row: str) -> Answered:
        cells = {cell.id: cell for cell in self._cells.get((file, row), [])}
        seen = [self._seen(cell) for cell in cells.values()]
        clean = [o for o in seen if o.row.condition == CLEAN]
        usable = next((o for o in clean if o.status == "ok"), None)
        # In place of a damaged answer no other condition's speaks: its inputs may be others.
        if usable is None and not any(o.cell in self.damaged for o in clean):
            # A spot check answered for other samples than the other row's first ones.
            other = next((o for o in seen if o.status == "ok" and o.samples is None), None)
            usable = other and self._seen(cells[other.cell], whole=True)
        if usable is None:
            why = next((f": {o.error}" for o in seen if o.error), "")
            raise NotAvailableError(
                "E-ROW-UNANSWERED", f"{row} has no answer to {file[0]}.{file[1]}{why}", where=row
            )
        known = self._truth(file[0], file[2])
        attempt = self.run.attempts[usable.attempt or ""]
        assert attempt.result is not None  # it is ok
        environment = self.run.environment(attempt)
        config = self._frozen.matrix.runtime(usable.row.runtime)
        spec = runtime_spec(config, self._frozen.inventory.device(usable.row.device))
        found = factors(usable.row, spec, environment, usable.fallbacks)
        probed = self._prints.speaking(found)
        return Answered(
            attempt,
            read(known.task, usable.outputs, known.labels, known.inputs),
            found,
            side(row, found, spec, attempt.result, environment, seen),
            probed.document if probed else None,
            None if probed else self._prints.stale(found),
        )

    def _seen(self, cell: CellInfo, *, whole: bool = False) -> Observation:
        """Without the outputs of those that are only counted, unless ``whole``."""
        found = observation_or_error(self.run, cell)
        compared = whole or found.order is not None or found.row.condition == CLEAN
        return found if compared else replace(found, outputs=())

    def _known(self, model: str, inputs: str) -> Truth:
        return truth_of(self.run, model, inputs, None)


def explained(
    explainer: Explainer, a: str, b: str, pattern: str = "*"
) -> Iterator[Json | NotAvailableError]:
    """Every file that both rows answered; what cannot be compared, as its reason.

    Raises InputError E-ROW-UNKNOWN, E-MODEL-NAME.
    """
    files = explainer.files(pattern)
    if not files:
        known = ", ".join(sorted({f"{m}.{f}" for m, f, _ in explainer.files()}))
        raise InputError("E-MODEL-NAME", f"no model file is {pattern!r}", fix=f"known: {known}")
    for left, right in explainer.pairs(a, b):
        for file in files:
            if not (explainer.planned(file, left) and explainer.planned(file, right)):
                continue
            try:
                yield explainer.explain(file, left, right)
            except NotAvailableError as error:
                yield error
            except TaskError as error:
                yield NotAvailableError(error.id, error.what, where=f"{left} / {right}")


def unreadable(explainer: Explainer) -> list[Json]:
    """What it could not read up to now, as JSON data."""
    told = explainer.damaged.items()
    return [{"what": what, "error_id": e.id, "error": str(e)} for what, e in told]


def _apart(a: Side, b: Side) -> Json:
    """Every factor that differs, inner ones too: name -> [value of a, value of b]."""
    names = sorted({*a.factors, *b.factors})
    both = {name: [a.factors.get(name), b.factors.get(name)] for name in names}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def _difference(found: Signature) -> Json:
    pair = found.pair
    return {
        "n": pair.n,
        "bit_exact": pair.bit_exact,
        "elements": pair.elements,
        "elements_different": pair.elements_different,
        "max_lsb": pair.max_lsb,
        "mean_signed_lsb": pair.mean_signed_lsb,
        "larger_in_a": found.up,
        "larger_in_b": found.down,
        "by_one_step": found.ones,
        "max_relative": found.relative,
        "disagreement": asdict(rate(pair.disagreement, pair.n)),
        "right": None if found.right is None else list(found.right),
        "nonfinite": list(found.nonfinite),
    }
