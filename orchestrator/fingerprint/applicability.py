"""Why what tells two fingerprints apart does not reach the operators of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.fingerprint.describe import Document

ENDS = " float ends"
"""Of families that ask of operators between QUANTIZE and DEQUANTIZE."""


def unreached(
    apart: Iterable[str],
    a: Document,
    b: Document,
    operators: Mapping[str, int],
    families: Mapping[str, tuple[int, int]],
) -> dict[str, str]:
    """Which differing families a file does not meet, each with the reason.

    ``apart``: families that the two answer differently; ``operators`` and ``families`` as
    `ModelInfo` has them. The file has no such operator; or a fused activation clamps them all at
    zero, and all probes of the family that are clamped so are answered alike. What is not known of
    the file is left out.
    """
    found = {}
    for family in apart:
        kind, base = family.split()[0], family.removesuffix(ENDS)
        of_kind = [n for name, (n, _) in families.items() if name.split()[0] == kind]
        if not of_kind or sum(of_kind) != operators.get(kind):
            continue
        inner = base != family and not {"QUANTIZE", "DEQUANTIZE"} & operators.keys()
        if base not in families or inner:
            found[family] = "the file has no such operator"
            continue
        n, clamped = families[base]
        alike = _clamped_alike(family, a, b)
        if n == clamped and alike:
            found[family] = (
                f"a fused ReLU clamps the results of all {n} in the file, "
                f"and the {alike} probes with one are answered alike"
            )
    return found


def _clamped_alike(family: str, a: Document, b: Document) -> int:
    """Probes of the family with a fused activation, if both answer all of them alike; else 0."""
    x, y = a["families"][family]["probes"], b["families"][family]["probes"]
    clamped = [name for name in x if "relu" in name.split(".")]
    return len(clamped) if all(x[n]["answer"] == y[n]["answer"] for n in clamped) else 0
