"""One run over every kind of unit of the virtual farm: both of its example matrices at once.

Emulation is slow, and most of its time goes into starting workers; so every test of what a plain
run finds there asks this one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from infra.bundles import build as bundles
from infra.standins import build as standins
from tests.conftest import phone_trouble
from tests.support.cli import REPO, Done, assay
from tests.support.judged import Judged

MATRICES = REPO / "matrices"
POLICY = MATRICES / "policies" / "virtual-farm.yaml"

_SECOND_NET = "digits_ds"
"""Only the boards of virtual-farm.yaml run it, and under no third runtime."""

LEFT_OUT = (
    f"!*-{_SECOND_NET}.*-tflite214",
    *(f"!qemu-{unit}-{_SECOND_NET}.*" for unit in ("armhf", "phone")),
    *(f"!qemu-{unit}-digits_cnn.u8s8*" for unit in ("armhf", "phone")),
)


def both(folder: Path) -> Path:
    """The two matrices as one, without relative paths: all-kinds with the other's files added."""
    boards, kinds = (_loaded(name) for name in ("virtual-farm", "all-kinds"))
    compiled = [f for f in kinds["models"][0]["files"] if "compiled_from" in f]
    assert boards["models"][0]["name"] == kinds["models"][0]["name"]
    boards["models"][0]["files"] += compiled
    assert {r["name"] for r in boards["runtimes"]} <= {r["name"] for r in kinds["runtimes"]}
    listed = [d["name"] for d in (*boards["devices"], *kinds["devices"])]
    boards["devices"] = [{"name": name} for name in dict.fromkeys(listed)]
    boards["runtimes"] = kinds["runtimes"]
    (folder / "both.yaml").write_text(yaml.safe_dump(boards, sort_keys=False))
    return folder / "both.yaml"


def run(matrix: Path, store: Path, *select: str, executor: str = "ray") -> Done:
    """Run the cells of ``both`` that ``select`` means; of one example matrix as well as of both."""
    chosen = [*select, *LEFT_OUT, *(["!qemu-phone-*"] if phone_trouble() else [])]
    options = [part for glob in chosen for part in ("--select", glob)]
    env = {"ASSAY_EXECUTOR": executor}
    return assay("run", matrix, *options, "--json", store=store, env=env, timeout=1400)


def everything(folder: Path) -> Judged:
    standins.build()
    if not phone_trouble():
        for name in ("aarch64-litert", "aarch64-onnxruntime"):
            bundles.ensure(name)
    return Judged(run(both(folder), folder / "store"), folder / "store")


def _loaded(name: str) -> dict[str, Any]:
    """A matrix of the project, its paths absolute."""
    matrix: dict[str, Any] = yaml.safe_load((MATRICES / f"{name}.yaml").read_text())
    for key in ("inventory", "policy"):
        matrix[key] = str(MATRICES / matrix[key])
    for model in matrix["models"]:
        model["fp32_twin"] = str(MATRICES / model["fp32_twin"])
        _absolute([model["fp32"], *model["files"]])
    _absolute(matrix["inputs"])
    return matrix


def _absolute(items: Iterable[dict[str, Any]]) -> None:
    for item in items:
        item["path"] = str(MATRICES / item["path"])
