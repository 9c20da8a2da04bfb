"""The one-way arrows of the design, held by reading the imports of every module."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ROOMS = (
    "errors",
    "conditions",
    "queue",
    "store",
    "transports",
    "results",
    "models",
    "matrix",
    "devices",
    "variance",
    "fanout",
    "diagnosis",
    "signoff",
    "runs",
    "fingerprint",
    "staging",
    "export",
    "coordinator",
    "offline",
    "reports",
    "analysis",
    "run",
    "cli",
)
"""Folders and modules of `orchestrator`, from the ground up: each knows only those before it."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            package = node.module == "orchestrator"
            yield from (f"orchestrator.{a.name}" for a in node.names) if package else [node.module]


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


def arrows() -> dict[tuple[str, str], list[str]]:
    """(importing room, imported room) -> what imports what."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in modules("orchestrator"):
        room = room_of(path)
        for name in imports(path):
            top, _, inside = name.partition(".")
            if top == "orchestrator" and inside and inside.partition(".")[0] != room:
                found[room, inside.partition(".")[0]].append(f"{path.relative_to(ROOT)}: {name}")
    return found


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "orchestrator").with_suffix("").parts[0]


def test_every_room_has_a_place_in_the_order() -> None:
    assert {room_of(path) for path in modules("orchestrator")} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize(
    "room", ["models", "variance", "diagnosis", "signoff", "runs", "export", "analysis"]
)
def test_what_reads_and_compares_never_drives_a_device(room: str) -> None:
    """Where a question visits devices again, `coordinator` does, and hands arrays over."""
    assert {b for a, b in arrows() if a == room}.isdisjoint({"devices", "fanout"})


def test_recorded_runs_have_one_reader() -> None:
    """Only `runs.run` makes a run of what a store holds."""
    readers = {
        str(path.relative_to(ROOT))
        for path in modules("orchestrator")
        if re.search(r"\bload_run\(", path.read_text())
    }
    assert readers == {"orchestrator/runs/run.py", "orchestrator/runs/snapshot.py"}


def test_the_guide_lists_the_rooms_from_the_top_down() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert tuple(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == ROOMS[::-1]


def test_no_import_points_up(capsys: pytest.CaptureFixture[str]) -> None:
    found = arrows()
    up = {
        arrow: where
        for arrow, where in found.items()
        if ROOMS.index(arrow[1]) > ROOMS.index(arrow[0])
    }
    assert up == {}
    floors: dict[str, int] = {}
    for room in ROOMS:
        floors[room] = 1 + max((floors[b] for a, b in found if a == room), default=0)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(ROOMS)} rooms on {max(floors.values())} floors, {len(found)} arrows, 0 up\n"
        )


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
