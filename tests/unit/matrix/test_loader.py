from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import InputError
from orchestrator.matrix.frozen import freeze, thaw
from orchestrator.matrix.loader import load_matrix, sha256_path
from orchestrator.matrix.plan import expand
from orchestrator.matrix.policy import Policy
from tests.unit.matrix.build import edited, written
from tests.unit.matrix.test_inventory import data as inventory_data


def files(folder: Path, *edits: tuple[str, Any]) -> Path:
    """A matrix with every file it names; their content does not matter here."""
    for name in ("net.fp32.onnx", "net.q.onnx", "net.i.tflite"):
        (folder / name).write_bytes(name.encode())
    np.savez(folder / "set.npz", x=np.zeros((5, 2)), y=np.zeros(5, np.int64))
    written(folder, inventory_data(), "inventory.yaml")
    return written(folder, edited(*edits))


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_matrix(path)
    return caught.value


def line_of(path: Path, text: str) -> int:
    lines = path.read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


def test_everything_there(tmp_path: Path) -> None:
    loaded = load_matrix(files(tmp_path))
    assert [d.name for d in loaded.inventory.devices] == ["d"]
    assert len(expand(loaded.matrix, loaded.inventory).cells) == 4


@pytest.mark.parametrize("name", ["net.q.onnx", "net.fp32.onnx"])
def test_a_missing_model(tmp_path: Path, name: str) -> None:
    path = files(tmp_path)
    (tmp_path / name).unlink()
    error = refusal(path)
    assert (error.id, error.where) == ("E-MODEL-MISSING", f"{path}:{line_of(path, name)}")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    path = files(tmp_path)
    (tmp_path / "net.q.onnx").unlink()
    (tmp_path / "net.q.onnx").mkdir()
    assert refusal(path).id == "E-MODEL-MISSING"


def test_sha256_is_enforced(tmp_path: Path) -> None:
    good = hashlib.sha256(b"net.q.onnx").hexdigest()
    load_matrix(files(tmp_path, ("models.0.files.0.sha256", good)))
    bad = "0" * 64
    path = files(tmp_path, ("models.0.files.0.sha256", bad))
    error = refusal(path)
    assert (error.id, error.where) == ("E-MODEL-SHA256", f"{path}:{line_of(path, bad)}")
    assert good in error.what
    assert bad in error.what
    parent = {"path": "net.fp32.onnx", "sha256": bad}
    assert refusal(files(tmp_path, ("models.0.fp32", parent))).id == "E-MODEL-SHA256"
    twin = refusal(files(tmp_path, ("models.0.fp32_twin", "none.tflite")))
    assert (twin.id, "none.tflite" in twin.what) == ("E-MODEL-MISSING", True)


@pytest.mark.parametrize(
    ("edit", "id"),
    [
        (("inputs.0.path", "none.npz"), "E-INPUT-MISSING"),
        (("inputs.0.path", "."), "E-INPUT-MISSING"),
        (
            ("inputs.0", {"name": "set", "type": "npy", "path": "set.npz", "labels": "none.npy"}),
            "E-INPUT-MISSING",
        ),
        (
            ("inputs.0", {"name": "set", "type": "images", "path": "set.npz", "size": [1, 1]}),
            "E-INPUT-MISSING",
        ),
        (("policy", "none.yaml"), "E-POLICY-MISSING"),
        (("inventory", "none.yaml"), "E-INVENTORY-MISSING"),
    ],
)
def test_other_missing_files(tmp_path: Path, edit: tuple[str, Any], id: str) -> None:
    error = refusal(files(tmp_path, edit))
    assert error.id == id
    assert (error.where or "").startswith(f"{tmp_path / 'm.yaml'}:")


def test_frozen_and_thawed_is_the_same(tmp_path: Path) -> None:
    loaded = load_matrix(files(tmp_path, ("timeouts", {"cell": "3m"})))
    policy = Policy(name="p")
    kept = json.loads(json.dumps(freeze(loaded.matrix, loaded.inventory, policy), allow_nan=False))
    for path in tmp_path.iterdir():
        path.unlink()  # resume needs none of them to know what the run was
    thawed = thaw(kept)
    assert (thawed.matrix, thawed.inventory) == (loaded.matrix, loaded.inventory)
    assert thawed.policy is not None
    assert Policy.model_validate_json(json.dumps(thawed.policy)) == policy
    assert thawed.files[str(tmp_path / "net.q.onnx")] == hashlib.sha256(b"net.q.onnx").hexdigest()
    assert set(thawed.files) == {
        str(tmp_path / n) for n in ("net.q.onnx", "net.i.tflite", "net.fp32.onnx", "set.npz")
    }
    assert expand(thawed.matrix, thawed.inventory) == expand(loaded.matrix, loaded.inventory)


def test_without_policy(tmp_path: Path) -> None:
    loaded = load_matrix(files(tmp_path))
    assert thaw(freeze(loaded.matrix, loaded.inventory, None)).policy is None


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    loaded = load_matrix(files(tmp_path))
    kept = freeze(loaded.matrix, loaded.inventory, None)
    broken = kept | {"matrix": {**kept["matrix"], "models": []}}
    missing = {k: v for k, v in kept.items() if k != "files"}
    for data in (kept | {"version": 99}, broken, missing):
        with pytest.raises(InputError) as caught:
            thaw(data)
        assert caught.value.id == "E-FROZEN"


def test_a_folders_identity_covers_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.png").write_bytes(b"1")
    first = sha256_path(folder)
    assert sha256_path(folder) == first
    (folder / "a" / "1.png").write_bytes(b"2")
    second = sha256_path(folder)
    (folder / "a" / "1.png").rename(folder / "a" / "2.png")
    assert len({first, second, sha256_path(folder)}) == 3
