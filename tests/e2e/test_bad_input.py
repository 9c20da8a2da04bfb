"""Bad input: one clear line, the right exit code, nothing half-written."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.cli import assay
from tests.support.tiny import MODELS, QUICKSTART, Tiny

Spoil = Callable[[Tiny], None]

DIGITS = QUICKSTART / "digits_8x8.npz"


def nothing_written(store: Path) -> None:
    """No run, no report; a store that was opened may be there, empty."""
    assert not (store / "reports").exists()
    if (store / "assay.db").exists():
        with closing(sqlite3.connect(store / "assay.db")) as database:
            for table in ("run", "cell", "attempt", "device"):
                assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def refused(tiny: Tiny, store: Path, error_id: str, *parts: str) -> str:
    line = assay("run", tiny.write(), store=store).refused(2, error_id, *parts)
    nothing_written(store)
    return line


# What is wrong with the files is known before anything is touched ------------------------------


def _unknown_key(t: Tiny) -> None:
    t.matrix["runtimes"][0]["thread"] = 2


def _wrong_type(t: Tiny) -> None:
    t.inputs["limit"] = "many"


def _duplicate_names(t: Tiny) -> None:
    t.matrix["runtimes"].append(t.matrix["runtimes"][0].copy())


def _missing_model(t: Tiny) -> None:
    t.file["path"] = str(t.folder / "nowhere.onnx")


def _missing_input(t: Tiny) -> None:
    t.inputs["path"] = str(t.folder / "nowhere.npz")


def _missing_policy(t: Tiny) -> None:
    t.matrix["policy"] = "nowhere.yaml"


def _missing_inventory(t: Tiny) -> None:
    t.matrix["inventory"] = "nowhere.yaml"


def _wrong_sha256(t: Tiny) -> None:
    t.file["sha256"] = "0" * 64


def _unknown_device(t: Tiny) -> None:
    t.matrix["devices"] = [{"name": "toaster"}]


def _bad_condition(t: Tiny) -> None:
    t.matrix["conditions"] = ["repeat:1"]


@pytest.mark.parametrize(
    ("spoil", "error_id", "at", "says"),
    [
        (_unknown_key, "E-MATRIX-KEY", "thread: 2", "did you mean 'threads'?"),
        (_wrong_type, "E-MATRIX-TYPE", "limit: many", "'many'"),
        (_duplicate_names, "E-MATRIX-DUPLICATE", "- name: ort", "'ort' is already the name"),
        (_missing_model, "E-MODEL-MISSING", "nowhere.onnx", "no model file"),
        (_missing_input, "E-INPUT-MISSING", "nowhere.npz", "no input file"),
        (_missing_policy, "E-POLICY-MISSING", "nowhere.yaml", "no policy"),
        (_missing_inventory, "E-INVENTORY-MISSING", "nowhere.yaml", "no inventory"),
        (_wrong_sha256, "E-MODEL-SHA256", "sha256: ", "the matrix demands 0000"),
        (_bad_condition, "E-MATRIX-CONDITION", "repeat:1", "repeat:N"),
        (_unknown_device, "E-SELECT-DEVICE", None, "bench"),
    ],
)
def test_what_the_yaml_says_wrong(
    tiny: Tiny, store: Path, spoil: Spoil, error_id: str, at: str | None, says: str
) -> None:
    spoil(tiny)
    line = refused(tiny, store, error_id, says)
    assert not store.exists()
    if at is not None:
        lines = (tiny.folder / "matrix.yaml").read_text().splitlines()
        named = re.search(r"matrix\.yaml:(\d+): ", line)
        assert named is not None, line
        assert at in lines[int(named[1]) - 1]


@pytest.mark.parametrize(
    ("text", "error_id"),
    [
        ("a: &a [x,x,x,x,x,x,x,x,x]\n", "E-MATRIX-SIZE"),
        ("version: 1\nversion: 1\n", "E-MATRIX-DUPLICATE"),
        ("version: [1\n", "E-MATRIX-YAML"),
        ("name: !!python/object/apply:os.system [id]\n", "E-MATRIX-YAML"),
        ("", "E-MATRIX-YAML"),
    ],
    ids=["anchors-bomb", "key-twice", "broken", "python-tag", "empty"],
)
def test_yaml_that_is_no_matrix(tmp_path: Path, store: Path, text: str, error_id: str) -> None:
    if "&a" in text:
        steps = "abcdefghi"
        text += "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(steps))
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    assay("run", path, store=store, timeout=20).refused(2, error_id, "bomb.yaml")
    assert not store.exists()


def test_a_policy_or_inventory_with_an_unknown_key(tiny: Tiny, store: Path) -> None:
    tiny.policy["gates"]["G99"] = {"enabled": True}
    refused(tiny, store, "E-MATRIX-KEY", "policy.yaml:", "G99")
    del tiny.policy["gates"]["G99"]
    tiny.devices[0]["transport"]["prot"] = 22
    refused(tiny, store, "E-MATRIX-KEY", "inventory.yaml:", "prot")
    assert not store.exists()


def test_no_matrix_file_at_all(tmp_path: Path, store: Path) -> None:
    assay("run", tmp_path / "none.yaml", store=store).refused(2, "E-MATRIX-READ", "none.yaml")
    assert not store.exists()


def test_a_selection_of_nothing(tiny: Tiny, store: Path) -> None:
    done = assay("run", tiny.write(), "--select", "rpi4-*", store=store)
    done.refused(2, "E-SELECT-EMPTY", "'rpi4-*'", "bench-cnn.u8s8-digits-clean-ort")
    assert not store.exists()


# What is wrong inside models and input sets is known before anything is queued -----------------


def _truncated(t: Tiny) -> None:
    whole = (MODELS / "digits_cnn.u8s8.onnx").read_bytes()
    _write(t, "short.onnx", whole[: len(whole) // 2])
    t.file["path"] = "short.onnx"


def _truncated_tflite(t: Tiny) -> None:
    whole = (MODELS / "digits_cnn.int8.tflite").read_bytes()
    _write(t, "short.tflite", whole[: len(whole) // 2])
    t.file.update(path="short.tflite", layout="same")
    t.matrix["runtimes"] = [{"name": "lite", "runtime": "litert"}]


def _empty_model(t: Tiny) -> None:
    _write(t, "empty.onnx", b"")
    t.file["path"] = "empty.onnx"


def _int8_parent(t: Tiny) -> None:
    t.matrix["models"][0]["fp32"]["path"] = str(MODELS / "digits_cnn.u8u8.onnx")


def _parent_of_another_shape(t: Tiny) -> None:
    t.matrix["models"][0]["fp32"]["path"] = str(MODELS / "digits_ds.fp32.onnx")


def _npz(**arrays: Any) -> Spoil:
    def spoil(t: Tiny) -> None:
        with np.load(DIGITS) as whole:
            kept = {"x": whole["x"][:20], "y": whole["y"][:20]}
        t.folder.mkdir(parents=True, exist_ok=True)
        made = {k: (v(kept) if callable(v) else v) for k, v in arrays.items()}
        np.savez(t.folder / "bad.npz", **(kept | made))
        t.inputs["path"] = "bad.npz"

    return spoil


def _nan(kept: dict[str, Any]) -> Any:
    x = kept["x"].astype(np.float32)
    x[7, 0, 0] = np.nan
    return x


def _task(**changes: Any) -> Spoil:
    def spoil(t: Tiny) -> None:
        t.matrix["models"][0]["task"] |= changes

    return spoil


def _truncated_npz(t: Tiny) -> None:
    _write(t, "bad.npz", DIGITS.read_bytes()[:3000])
    t.inputs["path"] = "bad.npz"


def _unknown_array(t: Tiny) -> None:
    t.inputs["array"] = "images"


def _write(t: Tiny, name: str, data: bytes) -> None:
    t.folder.mkdir(parents=True, exist_ok=True)
    (t.folder / name).write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "error_id", "parts"),
    [
        (_truncated, "E-MODEL-UNREADABLE", ("short.onnx",)),
        (_truncated_tflite, "E-MODEL-UNREADABLE", ("short.tflite",)),
        (_empty_model, "E-MODEL-UNREADABLE", ("empty.onnx",)),
        (_int8_parent, "E-FP32-PARENT", ("digits_cnn.u8u8.onnx", "quantised")),
        (_parent_of_another_shape, "E-FP32-PARENT", ("digits_ds.fp32.onnx", "elements")),
        (_npz(x=np.array([{"a": 1}] * 20, object)), "E-INPUT-PICKLE", ("bad.npz",)),
        (_npz(x=_nan), "E-INPUT-NAN", ("bad.npz", "sample 7")),
        (_npz(x=lambda k: k["x"][:, :5]), "E-INPUT-SHAPE", ()),
        (_npz(x=np.array(["one"] * 20)), "E-INPUT-DTYPE", ("bad.npz",)),
        (_npz(x=lambda k: k["x"][:0]), "E-INPUT-EMPTY", ("bad.npz",)),
        (_npz(y=np.arange(19)), "E-INPUT-LABELS", ("bad.npz", "20 samples")),
        (_npz(y=np.arange(20)), "E-TASK-MISMATCH", ("matrix.yaml:", "0..9 for each sample")),
        (_task(output=9), "E-TASK-MISMATCH", ("matrix.yaml:", "output 9, the model has 1")),
        (_truncated_npz, "E-INPUT-UNREADABLE", ("bad.npz",)),
        (_unknown_array, "E-INPUT-ARRAY", ("'images'", "x, y")),
    ],
    ids=[
        *("truncated-onnx", "truncated-tflite", "empty-model", "parent-int8", "parent-shape"),
        *("pickle", "nan", "shape", "dtype", "empty", "labels", "label-range", "output"),
        *("truncated-npz", "array"),
    ],
)
def test_what_models_and_inputs_hold_wrong(
    tiny: Tiny, store: Path, spoil: Spoil, error_id: str, parts: tuple[str, ...]
) -> None:
    spoil(tiny)
    refused(tiny, store, error_id, *parts)


def test_bad_input_is_one_line_with_ray_as_well(tiny: Tiny, store: Path) -> None:
    _npz(x=_nan)(tiny)
    done = assay("run", tiny.write(), store=store, env={"ASSAY_EXECUTOR": "ray"})
    done.refused(2, "E-INPUT-NAN", "sample 7")
    nothing_written(store)


def test_a_users_file_may_change_once_the_run_is_queued(tiny: Tiny, store: Path) -> None:
    tiny.folder.mkdir(parents=True)
    model = tiny.folder / "mine.onnx"
    shutil.copy(MODELS / "digits_cnn.u8s8.onnx", model)
    shutil.copy(DIGITS, tiny.folder / "mine.npz")
    tiny.file["path"], tiny.inputs["path"] = "mine.onnx", "mine.npz"
    submitted = assay("submit", tiny.write(), "--json", store=store).json
    model.write_bytes((MODELS / "digits_cnn.u8u8.onnx").read_bytes())
    (tiny.folder / "mine.npz").write_bytes(b"gone")
    (tiny.folder / "inventory.yaml").unlink()
    done = assay("resume", submitted["run"], "--json", store=store)
    assert done.code == 0, done.err
    row = done.json["rows"][0]
    assert (row["accuracy"]["k"], row["accuracy"]["n"]) == (20, 20)
    with closing(sqlite3.connect(store / "assay.db")) as database:
        (result,) = database.execute("SELECT result FROM attempt").fetchone()
    assert _sha256(MODELS / "digits_cnn.u8s8.onnx") in result


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Stores ----------------------------------------------------------------------------------------


def stored(tiny: Tiny, store: Path) -> Path:
    """A store with one queued run; the matrix' path."""
    matrix = tiny.write()
    assert assay("submit", matrix, store=store).code == 0
    return matrix


def runs(store: Path) -> int:
    with closing(sqlite3.connect(store / "assay.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM run").fetchone()
        return int(count)


def test_a_store_that_another_process_locks(tiny: Tiny, store: Path) -> None:
    matrix = stored(tiny, store)
    with closing(sqlite3.connect(store / "assay.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert assay("status", store=store).code == 0  # readers are not kept out
        done = assay("submit", matrix, store=store)
        holder.execute("ROLLBACK")
    done.refused(3, "E-STORE-LOCKED", "assay.db")
    assert runs(store) == 1


def test_a_store_from_a_newer_assay(tiny: Tiny, store: Path) -> None:
    matrix = stored(tiny, store)
    with closing(sqlite3.connect(store / "assay.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in (["run", matrix], ["submit", matrix], ["status"], ["store", "upgrade"]):
        assay(*command, store=store).refused(3, "E-STORE-NEW", "9999", "upgrade Assay")
    assert runs(store) == 1


def test_a_store_that_may_only_be_read(tiny: Tiny, store: Path) -> None:
    matrix = stored(tiny, store)
    before = _without_root_powers()
    locked = [store, *store.rglob("*")]
    for path in locked:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        done = assay("submit", matrix, store=store, before=before)
        seen = assay("status", "--json", store=store, before=before)
    finally:
        for path in locked:
            path.chmod(0o755 if path.is_dir() else 0o644)
    done.refused(3, "E-STORE-READONLY", str(store))
    assert seen.code == 0, seen.err
    assert seen.json["runs"][0]["state"] == "queued"
    assert runs(store) == 1


def test_a_store_folder_that_cannot_be_made(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = assay("run", tiny.write(), store=tmp_path / "file" / "store")
    assert done.code == 3
    assert done.err.count("\n") == 1
    assert "[E-STORE-OPEN]" in done.err


def test_a_file_that_is_no_store(tiny: Tiny, store: Path) -> None:
    store.mkdir()
    (store / "assay.db").write_bytes(b"not a database" * 100)
    for command in (["run", tiny.write()], ["status"]):
        assay(*command, store=store).refused(3, "E-STORE-CORRUPT", "assay.db")


def test_no_store_yet(store: Path) -> None:
    for command in ("status", "logs", "variance", "signoff", "report", "resume"):
        done = assay(command, store=store)
        assert (done.code, done.err.count("\n")) == (2, 1), (command, done)
        assert not store.exists(), command


def test_a_report_that_cannot_be_written_is_said_before_hours_of_work(
    tiny: Tiny, store: Path
) -> None:
    done = assay("run", tiny.write(), "--report", "/proc/nowhere/report.html", store=store)
    done.refused(2, "E-REPORT-WRITE", "/proc/nowhere")
    nothing_written(store)


def _without_root_powers() -> list[str]:
    """A prefix under which permission bits hold for root too."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root ignores permission bits, and there is no setpriv to change that")
    dropped = "-dac_override,-dac_read_search,-fowner"
    return ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"]
