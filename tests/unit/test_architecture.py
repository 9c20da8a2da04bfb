"""The one-way arrows of the design, held by reading the imports of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOW = [
    "errors",
    "transports",
    "matrix",
    "queue",
    "results",
    "devices",
    "fanout",
    "inputs",
    "lineage",
    "store",
    "variance",
    "fingerprint",
    "layers",
    "attribution",
    "signoff",
    "columns",
    "coordinator",
    "reports",
]
"""Folders in the order in which they may be imported: each knows only those before it.

(Transports stand before the matrix because the inventory holds their settings.)"""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_ray_is_imported_by_the_module_that_starts_it_alone() -> None:
    users = {
        str(p.relative_to(ROOT))
        for p in modules("orchestrator") + modules("device_worker")
        if any(name.split(".")[0] == "ray" for name in imports(p))
    }
    assert users == {"orchestrator/fanout/ray_start.py"}


def test_the_worker_never_imports_the_orchestrator() -> None:
    for path in modules("device_worker"):
        assert not any(n.split(".")[0] == "orchestrator" for n in imports(path)), path


@pytest.mark.parametrize("folder", FLOW[1:])
def test_imports_point_one_way_along_the_flow(folder: str) -> None:
    allowed = set(FLOW[: FLOW.index(folder) + 1])
    for path in modules(f"orchestrator/{folder}"):
        for name in imports(path):
            if name.startswith("orchestrator."):
                assert name.split(".")[1] in allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["version"],
        ["status", "--help"],
        ["logs", "--help"],
        ["plan", "matrices/quickstart.yaml"],
        ["devices", "list"],
        ["fingerprint", "--help"],
        ["classes", "--help"],
        ["sql", "--tables"],
    ],
    ids=lambda a: " ".join(a),
)
def test_light_commands_import_no_numpy_ray_or_runtime(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli.main import invoke\n"
        f"code = invoke({arguments!r})\n"
        "heavy = {'numpy', 'ray', 'onnxruntime', 'onnx', 'ai_edge_litert', 'tflite_runtime',"
        " 'pyarrow', 'scipy', 'duckdb'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
