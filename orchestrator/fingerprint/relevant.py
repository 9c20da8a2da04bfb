"""Which families of a fingerprint speak of the operators that a model has."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.fingerprint.describe import Document


def relevant(
    families: Iterable[str], operators: Iterable[str], dtype: str | None
) -> frozenset[str]:
    """Those of the ``families`` that a model of these ``operators`` may meet.

    ``operators``: kinds in the file and in the graph that is made of it, with or without domain.
    ``dtype``: of the model's input; integers of the other sign are then left out. Floats stay in:
    an integer model may end in a float operator. Where in doubt a family is kept.
    """
    kinds = {kind.rpartition(".")[2] for kind in operators}
    other = {"int8": "uint8", "uint8": "int8"}.get(dtype or "")
    found = set()
    for family in families:
        words = family.split()
        if kinds & set(words) and other not in words:
            found.add(family)
    return frozenset(found)


def apart(a: Document, b: Document) -> tuple[dict[str, str], dict[str, str]]:
    """Names of what each computes in families answered differently; empty for two packs.

    Where one name covers both, a piece of the answers' hash tells them apart.
    """
    if a["pack"] != b["pack"]:
        return {}, {}
    left, right = {}, {}
    for name in sorted({*a["families"]} & {*b["families"]}):
        x, y = a["families"][name], b["families"][name]
        if x["sha256"] == y["sha256"]:
            continue
        same = x["mode"] == y["mode"]
        left[name] = f"{x['mode']} #{x['sha256'][:6]}" if same else x["mode"]
        right[name] = f"{y['mode']} #{y['sha256'][:6]}" if same else y["mode"]
    return left, right
