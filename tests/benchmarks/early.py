"""How many inferences until a true *fail* of G6 is known.

Near ties first against a random order, against sequential tests of a random order, against the
whole sweep. No clock: counts of inferences.

Two rules. "Certain" stops when the count seen fails the gate whatever the rest says
(variance/early.py): the verdict of the whole sweep, always. The sequential tests may err, each at
the gate's own 5 %, and hold in a random order only.

"Of the sweep": the ratio of a beta-binomial mixture to the likeliest set of samples that would not
fail, a martingale without replacement (Waudby-Smith & Ramdas 2020, Confidence sequences for
sampling without replacement, NeurIPS 33, section 2). Errs about what the sweep would say.

"Of the rate": the same mixture, kept to rates above the limit, against the limit itself (Robbins
1970, Statistical methods related to the law of the iterated logarithm, Ann. Math. Stat. 41, 1397).
Errs about the true rate, as the gate does.

$ASSAY_REALMODELS and tflite-runtime add real nets that runtimes decide differently.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincc, log_ndtr
from scipy.stats import betabinom, binom, hypergeom

from device_worker.batch import Trial
from device_worker.wire import RuntimeSpec
from orchestrator.devices import batch
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.matrix.policy import Reference
from orchestrator.models.inspect import inspect
from orchestrator.transports import LocalSettings, open_transport
from orchestrator.variance.answers import Answers, read
from orchestrator.variance.early import certain_after, near_ties_first, needed
from orchestrator.variance.intervals import rate
from orchestrator.variance.lattice import Array, Output
from orchestrator.variance.tasks import Classification, Mask, disagree
from tests.benchmarks.kit import Spread, Table
from tests.conftest import REPO

LIMIT, CONFIDENCE = Reference().max_disagreement, 0.95
SAMPLES, TRIALS, ORDERS = 10_000, 400, 400
PRIOR = 1.0, 1 / (4 * LIMIT) - 1
"""Beta prior of the mixtures: a mean of four times the limit."""
NETS = {
    "ResNet-8 INT8": ("cifar10_resnet8/resnet8_int8.tflite", "eval_images.npz", "images"),
    "DS-CNN INT8": ("kws_dscnn/kws_savedmodel_int8.tflite", "eval_features.npz", "features"),
}

OLD_PYTHON = REPO / ".venv-tflite" / "bin" / "python"
OLD = RuntimeSpec("tflite-runtime")
OTHERS = {"litert": RuntimeSpec("litert"), "reference": RuntimeSpec("litert", kernels="reference")}

Random = np.random.Generator


@dataclass(frozen=True, eq=False)
class Pair:
    """``order``: near ties of the reference first. ``differ`` [n] in the samples' own order."""

    name: str
    order: NDArray[np.intp]
    differ: Mask


def run() -> list[Table]:
    random = np.random.default_rng(0)
    tables = [
        _synthetic("near ties flip", 0.01, _noise, random),
        _synthetic("near ties flip", 0.03, _noise, random),
        _synthetic("any sample flips (a fault)", 0.01, _fault, random),
        _synthetic("any sample flips (a fault)", 0.03, _fault, random),
    ]
    return [*tables, _nulls(random), *_real(random)]


def _synthetic(
    name: str, share: float, kind: Callable[[float, Random], Pair], random: Random
) -> Table:
    """TRIALS sweeps, of which those that fail count."""
    table = Table(f"{name}, {share:.1%} of {SAMPLES:,} samples: to a true fail", "inferences")
    pairs = [kind(share, random) for _ in range(TRIALS)]
    least = needed(SAMPLES, LIMIT, CONFIDENCE)
    _count(table, [p for p in pairs if p.differ.sum() >= (least or 0)], random)
    return table


def _count(table: Table, pairs: list[Pair], random: Random) -> None:
    """Adds the rows of ``pairs``, all of which fail in the end."""
    n = len(pairs[0].differ)
    least = needed(n, LIMIT, CONFIDENCE)
    assert least is not None
    near, drawn = [], []
    sequential: dict[str, list[int]] = {"of the sweep": [], "of the rate": []}
    for p in pairs:
        near.append(certain_after(p.differ[p.order], least))
        mixed = random.permutation(p.differ)
        drawn.append(certain_after(mixed, least))
        for what, at in (("of the sweep", _sweep(mixed, least)), ("of the rate", _rate(mixed))):
            sequential[what].append(n if at is None else at)
    whole = [float(n)] * len(pairs)
    table.add("whole sweep", whole)
    firsts = [float(x) for x in near if x is not None]
    assert len(firsts) == len(pairs), "certain is what the whole sweep says"
    table.add("certain, near ties first", firsts)
    table.add("certain, random order", [float(x) for x in drawn if x is not None])
    for what, asked in sequential.items():
        table.add(f"sequential test {what}, random order", [float(x) for x in asked])
        late = sum(x == n for x in asked)
        table.note(f"sequential test {what}: {late} of {len(asked)} ran to the end")
    ratio = Spread.of([x / n for x in firsts])
    table.note(
        f"near ties first: {ratio.p50:.3f} ({ratio.low:.3f}–{ratio.high:.3f}) of the sweep;"
        f" {least} of {n:,} fail at {LIMIT:.1%}"
    )


def _nulls(random: Random) -> Table:
    """True rate at the limit: how often each rule says *fail*."""
    table = Table(f"true rate at the limit of {LIMIT:.1%}, {SAMPLES:,} samples", "inferences")
    least = needed(SAMPLES, LIMIT, CONFIDENCE)
    assert least is not None
    said = {"whole sweep": 0, "certain, near ties first": 0, "sequential test of the rate": 0}
    wrong = trials = 0
    for _ in range(5 * TRIALS):
        p = _noise(LIMIT, random)
        fails = int(p.differ.sum()) >= least
        early = certain_after(p.differ[p.order], least) is not None
        assert early == fails
        said["whole sweep"] += fails
        said["certain, near ties first"] += early
        mixed = random.permutation(p.differ)
        said["sequential test of the rate"] += _rate(mixed) is not None
        if not fails:
            trials += 1
            wrong += _sweep(mixed, least) is not None
    for name, k in said.items():
        found = rate(k, 5 * TRIALS)
        table.note(f"{name}: {k} of {found.n} said fail, {found.low:.3f}–{found.high:.3f}")
    found = rate(wrong, trials)
    table.note(
        f"sequential test of the sweep: {wrong} of {trials} sweeps that did not fail were said to,"
        f" {found.low:.3f}–{found.high:.3f}"
    )
    return table


def _noise(share: float, random: Random) -> Pair:
    """Margins fall off exponentially; the device adds Gaussian noise that makes ``share`` flip."""
    margins = random.exponential(1.0, SAMPLES)
    differ = margins + random.normal(0, _sigma(share), SAMPLES) < 0
    return Pair("noise", np.argsort(margins, kind="stable"), differ)


def _sigma(share: float) -> float:
    """Where P(margin + sigma z < 0) = 1/2 - exp(sigma^2 / 2) Phi(-sigma) is ``share``."""
    low, high = 1e-4, 10.0
    for _ in range(60):
        sigma = (low + high) / 2
        flips = 0.5 - np.exp(sigma**2 / 2 + log_ndtr(-sigma))
        low, high = (sigma, high) if flips < share else (low, sigma)
    return sigma


def _fault(share: float, random: Random) -> Pair:
    """Whatever the margin: order cannot help."""
    margins = random.exponential(1.0, SAMPLES)
    return Pair("fault", np.argsort(margins, kind="stable"), random.random(SAMPLES) < share)


def _sweep(differ: Mask, least: int) -> int | None:
    """First sample at which no set of len(differ) samples with fewer than ``least`` is likely.

    The likelihood of a set that holds K events has its one peak at K = seen (n + 1) / t; where that
    lies at ``least`` - 1 or above, the likeliest of those below ``least`` is ``least`` - 1.
    """
    t, seen = _events(differ)
    n = len(differ)
    ratio = betabinom.logpmf(seen, t, *PRIOR) - hypergeom.logpmf(seen, n, least - 1, t)
    return _first(t, (ratio >= -np.log(1 - CONFIDENCE)) & (seen * (n + 1) >= (least - 1) * t))


def _rate(differ: Mask) -> int | None:
    """First sample at which no rate up to the limit is likely."""
    t, seen = _events(differ)
    a, b = PRIOR
    above = np.log(betaincc(a + seen, b + t - seen, LIMIT)) - np.log(betaincc(a, b, LIMIT))
    ratio = betabinom.logpmf(seen, t, a, b) + above - binom.logpmf(seen, t, LIMIT)
    return _first(t, ratio >= -np.log(1 - CONFIDENCE))


def _events(differ: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples asked and events seen after each event: only then can a test newly reject."""
    t = np.flatnonzero(differ) + 1
    return t, np.arange(1, len(t) + 1)


def _first(t: NDArray[np.int64], at: Mask) -> int | None:
    found = np.flatnonzero(at)
    return int(t[found[0]]) if len(found) else None


def _real(random: Random) -> list[Table]:
    tables, notes = [], Table("pairs that do not fail", "inferences")
    for p in _realmodels():
        n, k = len(p.differ), int(p.differ.sum())
        least = needed(n, LIMIT, CONFIDENCE)
        if least is None or k < least:
            notes.note(f"{p.name}: {k} of {n:,} decided differently; {least} would fail")
            continue
        table = Table(f"{p.name}: {k} of {n:,} decided differently", "inferences")
        _count(table, [p] * ORDERS, random)
        own = certain_after(p.differ, least)
        table.note(f"{own} in the order of the input set; random orders: {ORDERS}")
        tables.append(table)
    return [*tables, notes]


def _realmodels() -> Iterator[Pair]:
    folder = os.environ.get("ASSAY_REALMODELS")
    if folder is None or not OLD_PYTHON.exists():
        return
    for name, (file, inputs, array) in NETS.items():
        path = Path(folder) / file
        x = np.load(path.parent / inputs)[array]
        with tempfile.TemporaryDirectory(prefix="assay-early-") as root:
            usual = _ask(Path(root) / "old", path, x, OLD)
            for way, spec in OTHERS.items():
                other = _ask(Path(root) / way, path, x, spec)
                yield _pair(f"{name}, tflite-runtime / {way}", usual, other)


def _ask(root: Path, path: Path, x: Array, spec: RuntimeSpec) -> Answers:
    python = str(OLD_PYTHON) if spec is OLD else sys.executable
    info = inspect(path)
    fed, out = info.inputs[0], info.outputs[0]
    codes = np.rint(x / fed.scale) + (fed.zero_point or 0)
    codes = np.clip(codes, fed.code_min, fed.code_max).astype(fed.dtype)
    shape = (len(codes), *(abs(size) for size in fed.shape))
    archive = batch.pack(
        [Trial("m", "m", ["x"])], {"m": path.read_bytes()}, {"x": codes.reshape(shape)}
    )
    transport = open_transport(LocalSettings(root=str(root)), device="host")
    limits = Limits(900, 120)
    with DeviceSession(transport, device="host", owner="early", token=1, limits=limits) as session:
        answered = batch.run(session, session.worker(python), archive, spec)["m"]
    assert answered.tried.error is None, answered.tried.error
    values = answered.outputs[0].reshape(len(codes), -1)
    lattice = (out.scale, out.zero_point, out.code_min, out.code_max)
    return _answers(Output(out.name, values, *lattice))


def _answers(output: Output) -> Answers:
    return read(Classification(), [output])


def _pair(name: str, a: Answers, b: Answers) -> Pair:
    return Pair(name, near_ties_first(a), disagree(a.task, a.decisions, b.decisions))
