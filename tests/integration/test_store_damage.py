"""One damaged row, file or bit: every command answers for everything else and names it."""

from __future__ import annotations

import io
import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.cli.main import invoke
from orchestrator.errors import Exit
from orchestrator.store import series
from orchestrator.store.database import Store
from tests.support.answered import CLASSES, answer, queued, tiny_of
from tests.support.sealed import reseal

N = 12
UNITS = ("a", "b", "c")


@dataclass
class World:
    """A judged run of three units; ``b`` is the one that is damaged."""

    root: Path
    run: str
    capsys: pytest.CaptureFixture[str] | None = None

    def ask(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr of the command, in this process."""
        assert self.capsys is not None
        self.capsys.readouterr()
        code = invoke([*arguments, "--store", str(self.root)])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err, err
        assert "E-BUG" not in err, err
        return code, out, err

    def json(self, *arguments: str) -> Any:
        code, out, err = self.ask(*arguments, "--json")
        assert out, (code, err)
        return json.loads(out)

    def attempt(self, unit: str = "b") -> str:
        with sqlite3.connect(self.root / "assay.db") as db:
            [[id]] = db.execute("SELECT id FROM attempt WHERE device = ?", (unit,))
        return str(id)

    def sql(self, statement: str, *values: Any) -> None:
        with sqlite3.connect(self.root / "assay.db") as db:
            db.execute("PRAGMA foreign_keys=OFF")
            assert db.execute(statement, values).rowcount >= 1, statement
        db.close()

    def file(self, role: str, unit: str = "b") -> Path:
        with Store.open(self.root, readonly=True) as store:
            (found,) = [a for a in store.attempts(self.run) if a.device == unit]
            return store.artefacts.path(found.artefacts[role].sha256)

    def becomes(self, role: str, data: bytes) -> None:
        """The file of that role was stored so by a faulty worker: every hash fits."""
        attempt = self.attempt()
        with Store.open(self.root) as store:
            blob = store.artefacts.put_bytes(data)
            with store.database.write() as connection:
                run = connection.exec_driver_sql
                run("INSERT OR IGNORE INTO artefact VALUES (?, ?)", (blob.sha256, blob.size))
                run(
                    "UPDATE attempt_artefact SET sha256 = ? WHERE attempt = ? AND role = ?",
                    (blob.sha256, attempt, role),
                )
                if role == "output-0":
                    run(
                        "UPDATE attempt SET result ="
                        " json_set(result, '$.outputs[0].blob.sha256', ?) WHERE id = ?",
                        (blob.sha256, attempt),
                    )
                reseal(connection, attempt)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder, rng = tmp_path_factory.mktemp("damage"), np.random.default_rng(1)
    tiny = tiny_of(folder / "matrix", UNITS, N)
    tiny.policy["reference"] = [{"device": "a", "runtime": "litert"}]
    usual = rng.integers(-128, 127, (N, CLASSES)).astype(np.int8)
    with Store.open(folder / "store") as store:
        run = queued(store, tiny, usual)
        for n, unit in enumerate(UNITS):
            outputs = usual.copy()
            outputs[n] = -outputs[n]  # each unit's files are its own
            latency = np.arange(1, N + 1, dtype=np.int64) * 1000 + n
            answer(store, run, unit, outputs, latency_ns=latency)
        with store.database.write() as connection:
            connection.exec_driver_sql("UPDATE run SET state = 'done'")
    assert invoke(["signoff", "--store", str(folder / "store")]) == Exit.PASS
    return World(folder / "store", run)


@pytest.fixture
def world(judged: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    return World(Path(shutil.copytree(judged.root, tmp_path / "store")), judged.run, capsys)


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


GARBAGE = b"\x93NUMPY\x01\x00\xff\xff{'descr': '<f8', "
HUGE = npy(np.zeros(1)).replace(b"(1,)", b"(1000000000000,)")
DAMAGE: dict[str, Callable[[World], object]] = {
    "a flipped output": lambda w: flip(w.file("output-0"), 1234),
    "a truncated output": lambda w: w.file("output-0").write_bytes(
        w.file("output-0").read_bytes()[:150]
    ),
    "an output that is gone": lambda w: w.file("output-0").unlink(),
    "an output of another shape": lambda w: w.becomes("output-0", npy(np.zeros((N - 1, CLASSES)))),
    "an output without an axis": lambda w: w.becomes("output-0", npy(np.int8(1))),
    "an output of text": lambda w: w.becomes("output-0", npy(np.array(["x"] * N))),
    "an output of objects": lambda w: w.becomes("output-0", npy(np.array([{}] * N, object))),
    "an output of garbage": lambda w: w.becomes("output-0", GARBAGE),
    "an output that claims 8 TB": lambda w: w.becomes("output-0", HUGE),
    "an output that is a zip": lambda w: w.becomes("output-0", b"PK\x03\x04" + b"\0" * 60),
    "an edited attempt": lambda w: w.sql("UPDATE attempt SET hub = 'x' WHERE id = ?", w.attempt()),
    "another device": lambda w: w.sql("UPDATE attempt SET device = 'c' WHERE id = ?", w.attempt()),
    "an edited cell": lambda w: w.sql("UPDATE cell SET model = 'm' WHERE attempt = ?", w.attempt()),
    "an attempt that is gone": lambda w: w.sql("DELETE FROM attempt WHERE id = ?", w.attempt()),
    "a result that is a list": lambda w: w.sql(
        "UPDATE attempt SET result = '[]', digest = NULL WHERE id = ?", w.attempt()
    ),
    "a result without its parts": lambda w: w.sql(
        "UPDATE attempt SET result = '{\"telemetry\":5}', digest = NULL WHERE id = ?", w.attempt()
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_verdict_and_every_question_answer_for_the_rest(world: World, what: str) -> None:
    DAMAGE[what](world)
    document = world.json("signoff")
    rows = {row["device"]: row for row in document["rows"]}
    assert (document["verdict"], bool(document["damaged"])) == ("error", True)
    assert {rows[unit]["verdict"] for unit in "ac"} == {"pass"}, "as it was"
    hurt = [row["verdict"] for row in document["rows"] if row["device"] not in ("a", "c")]
    assert hurt == ["error"]
    agreed = world.json("agreement")
    assert sorted(r["unit"] for r in agreed["studies"][0]["raters"]) == ["a", "c"]
    assert agreed["damaged"]
    found = world.json("variance", "--by", "device")
    assert sorted(row["device"] for row in found["sets"][0]["rows"]) == ["a", "c"]
    assert found["problems"]


@pytest.mark.parametrize(
    "what",
    ["a flipped output", "an output of garbage", "an edited attempt", "a result without its parts"],
)
def test_every_command_ends_well(world: World, tmp_path: Path, what: str) -> None:
    DAMAGE[what](world)
    answered = world.json("sql", "SELECT DISTINCT device FROM samples ORDER BY 1")
    assert [row[0] for row in answered["rows"]] == ["a", "c"]
    for command in (
        *(("status",), ("logs",), ("history", "a"), ("report",), ("explain", "a", "c")),
        *(("variance", "--pair", "a/*", "c/*"), ("classes",)),
        ("export", "--parquet", str(tmp_path / "out")),
    ):
        code, out, err = world.ask(*command)
        assert out, (command, code, err)
    for command in (("explain", "a", "b"), ("layers", "a/litert", "b/litert")):
        code, out, err = world.ask(*command)
        assert code in (3, 5), (command, out, err)
    assert (world.ask("store", "check")[0] == 3) == ("garbage" not in what and "parts" not in what)


def test_what_is_whole_again_is_judged_anew_and_then_kept(world: World) -> None:
    path = world.file("output-0")
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert world.json("signoff")["verdict"] == "error"
    path.write_bytes(data)
    again = world.json("signoff")
    assert (again["verdict"], again["damaged"]) == ("pass", [])
    with sqlite3.connect(world.root / "assay.db") as db:
        count = "SELECT COUNT(*) FROM verdict"
        [[before]] = db.execute(count)
        assert world.json("signoff") == again
        assert [(before,)] == db.execute(count).fetchall(), "printed, not judged once more"


def test_a_verdict_that_was_edited_is_not_printed(world: World) -> None:
    world.sql("UPDATE verdict SET document = json_set(document, '$.verdict', 'fail')")
    assert world.json("signoff")["verdict"] == "pass"


def test_unwitnessed_attempts_are_counted_and_named(world: World) -> None:
    world.sql("UPDATE attempt SET digest = NULL")
    code, out, _ = world.ask("store", "check")
    assert code == 0
    assert "3 attempts unwitnessed" in out
    document = world.json("signoff")
    assert [a["digest"] for a in document["attempts"]] == [None] * 3
    assert all("unwitnessed" in " ".join(a["notes"]) for a in document["attempts"])
    assert {row["verdict"] for row in document["rows"]} == {"pass"}
    world.file("sample_hashes").unlink()
    rows = {row["device"]: row["verdict"] for row in world.json("signoff")["rows"]}
    assert rows == {"a": "pass", "b": "error", "c": "pass"}


FLIPS = 60


def test_a_flipped_bit_of_the_database_is_found_or_changes_nothing(world: World) -> None:
    path, rng = world.root / "assay.db", random.Random(10)
    whole = path.read_bytes()
    before = everything(world)
    found = 0
    for n in range(FLIPS):
        path.write_bytes(whole)
        bit = rng.randrange(len(whole) * 8)
        flip(path, bit)
        code, _, err = world.ask("store", "check")
        found += code != 0
        assert code == 0 or code == 3, (bit, err)
        if code == 0:
            assert everything(world) == before, f"bit {bit}"
        for command in ("status", "logs") if n % 5 == 0 else ():
            assert world.ask(command)[0] in (0, 2, 3), (command, bit)
    assert found > 4, "a tenth of a small database at least is records"


def everything(world: World) -> Any:
    """What readers are told of the run."""
    with Store.open(world.root, readonly=True) as store:
        environments = {str(a.environment) for a in store.attempts(world.run)}
        return (
            store.run(world.run),
            store.cells(world.run),
            store.attempts(world.run),
            store.devices(),
            store.frozen(world.run),
            store.verdict(world.run),
            store.fingerprints(),
            [store.environment_data(e) for e in sorted(environments)],
            {k: v.tolist() for k, v in series.latency(store, world.run).items()},
        )
