"""The committed schemas are fresh, and every YAML file in matrices/ passes both checkers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from orchestrator.matrix import schema, yamlfile
from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.loader import load_matrix
from orchestrator.matrix.model import Matrix
from orchestrator.matrix.plan import expand
from orchestrator.matrix.policy import Policy
from orchestrator.matrix.work import total_work
from tests.unit.matrix.build import MATRIX, edited, written

ROOT = Path(__file__).parents[3]
MATRICES = sorted((ROOT / "matrices").glob("*.yaml"))
KINDS: dict[str, tuple[type[BaseModel], list[Path]]] = {
    "matrix": (Matrix, MATRICES),
    "inventory": (Inventory, sorted((ROOT / "matrices" / "inventories").glob("*.yaml"))),
    "policy": (Policy, sorted((ROOT / "matrices" / "policies").glob("*.yaml"))),
}
ALL = [(kind, path) for kind, (_, paths) in KINDS.items() for path in paths]


@pytest.mark.parametrize("name", schema.MODELS)
def test_the_committed_schema_is_fresh(name: str) -> None:
    committed = (schema.FOLDER / f"{name}.json").read_text()
    assert committed == schema.text(name), "run: python -m orchestrator.matrix.schema --write"
    jsonschema.Draft202012Validator.check_schema(schema.schema(name))


def test_no_yaml_file_is_forgotten() -> None:
    found = {path for _, path in ALL}
    assert found == set((ROOT / "matrices").rglob("*.yaml"))
    assert ROOT / "matrices" / "quickstart.yaml" in found


@pytest.mark.parametrize(("kind", "path"), ALL, ids=lambda v: getattr(v, "name", v))
def test_every_yaml_file_passes(kind: str, path: Path) -> None:
    document = yamlfile.read(path)
    document.parse(KINDS[kind][0])
    jsonschema.Draft202012Validator(schema.schema(kind)).validate(document.data)


@pytest.mark.parametrize(("kind", "path"), ALL, ids=lambda v: getattr(v, "name", v))
def test_editors_are_told_the_right_schema(kind: str, path: Path) -> None:
    first = path.read_text().splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix), "users copy this file: its first line must name the schema"
    target = path.parent / first.removeprefix(prefix)
    assert target.resolve() == (schema.FOLDER / f"{kind}.json").resolve()


@pytest.mark.parametrize("path", MATRICES, ids=lambda p: p.name)
def test_every_matrix_expands(path: Path) -> None:
    loaded = load_matrix(path)
    plan = expand(loaded.matrix, loaded.inventory)
    assert total_work(loaded.matrix, plan.cells).total > len(plan.cells)


def test_the_schema_refuses_what_the_models_refuse(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema.schema("matrix"))
    assert validator.is_valid(yamlfile.read(written(tmp_path, MATRIX)).data)
    edits: list[tuple[str, Any]] = [
        ("modles", []),
        ("name", "a b"),
        ("timeouts", {"cell": "soon"}),
        ("models", []),
    ]
    for edit in edits:
        assert not validator.is_valid(edited(edit)), edit


def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys, orchestrator.matrix.loader, orchestrator.matrix.plan, "
        "orchestrator.matrix.work, orchestrator.matrix.frozen\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'ai_edge_litert', 'ray', 'pyarrow', 'paramiko'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_tool_notices_a_stale_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schema, "FOLDER", tmp_path / "schema")
    assert schema.main([]) == 1
    assert (
        "stale: matrix.json, inventory.json, device-class.json, policy.json"
        in capsys.readouterr().err
    )
    assert schema.main(["--write"]) == 0
    assert schema.main([]) == 0
