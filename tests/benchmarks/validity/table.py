"""Scores as a table for people: every rate with its n and its 95 % interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.variance.intervals import Rate, lower_bound, upper_bound
from tests.benchmarks.validity.methods import METHODS
from tests.benchmarks.validity.score import Score, of

TITLES = {
    "accuracy": "accuracy only",
    "stress": "stress inputs",
    "cross": "cross-hardware",
    "layers": "layer-wise",
    "files": "parents, slices",
    "all": "all",
}
CLAIMED = {"accuracy": 60, "stress": 85, "cross": 90, "layers": 75}
"""Detection rates that the articles behind this project state, in percent and without a source."""
MORE = "also claimed there: 80 % for simulated drift (not present), 95 % for A/B tests (not ours)"
SHOWN = 3


def lines(
    title: str, found: Sequence[Score], silent: Sequence[Score], missing: Mapping[str, str]
) -> Iterator[str]:
    yield f"\nValidity: {title}"
    real, made = [s for s in found if s.real], [s for s in found if not s.real]
    for group, some in (("real mechanisms", real), ("effects made up", made)):
        yield f"\n{group:44}{'found [95 % CI]':>24}{'90 % from':>11}{'named right [95 % CI]':>26}"
        for s in some:
            yield from _kind(s)
    yield f"\n{'nothing wrong':44}" + "".join(f"{TITLES[m]:>16}" for m in METHODS)
    for s in silent:
        yield f"  {s.kind:36}n {s.found['all'].n:<4}" + "".join(
            f"{s.found[m].k:>4} [0–{100 * s.found[m].high:.1f} %]".rjust(16) for m in METHODS
        )
    yield "\nall kinds, one-sided 95 % bounds in percent"
    heads = ("found", "from stated severity", "named right", "false alarms", "claimed")
    yield f"{'':26}" + "".join(f"{head:>22}" for head in heads)
    for group, some in (("real", real), ("made up", made), ("both", [*real, *made])):
        for method, name in TITLES.items():
            yield _method(group, name, method, some, silent)
    yield MORE
    yield from (f"not here: {what}: {why}" for what, why in missing.items())
    for s in (*found, *silent):
        told = Counter(text.partition(" (sev")[0] for text in s.missed)
        for said, count in told.most_common(SHOWN):
            yield f"  wrong of {s.kind}: {count} × {said}"


def _kind(s: Score) -> Iterator[str]:
    yield f"  {s.kind}: {s.truth}, n {s.found['all'].n}, stated severity {s.stated:g}"
    for method in METHODS:
        found, named, least = s.found[method], s.named[method], s.smallest[method]
        start = "-" if least is None or not found.k else f"{least:.3g}"
        yield f"      {TITLES[method]:38}{_share(found):>24}{start:>11}{_share(named):>26}"


def _method(
    group: str, title: str, method: str, some: Sequence[Score], silent: Sequence[Score]
) -> str:
    claim = f"{CLAIMED[method]}" if method in CLAIMED else "-"
    if method not in METHODS:
        return f"  {group:8}{title:16}{'not present':>22}{claim:>88}"
    found, above, named = (
        of(some, lambda s, what=what: getattr(s, what)[method])  # type: ignore[misc]
        for what in ("found", "above", "named")
    )
    alarms = of(silent, lambda s: s.found[method])
    cells = (_at_least(found), _at_least(above), _at_least(named), _at_most(alarms), claim)
    return f"  {group:8}{title:16}" + "".join(f"{cell:>22}" for cell in cells)


def _share(r: Rate) -> str:
    if r.rate is None:
        return "-"
    return f"{r.k}/{r.n} = {100 * r.rate:.0f} % [{100 * r.low:.0f}–{100 * r.high:.0f}]"


def _at_least(r: Rate) -> str:
    return f"{r.k}/{r.n} ≥ {100 * lower_bound(r.k, r.n):.1f}" if r.n else "-"


def _at_most(r: Rate) -> str:
    return f"{r.k}/{r.n} ≤ {100 * upper_bound(r.k, r.n):.2f}"
