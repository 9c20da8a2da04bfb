"""Nothing but the tables can be read and nothing written: by DuckDB's locks, and without them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import DeadlineError, InputError
from orchestrator.export import ask_child
from orchestrator.export.ask import Limits, ask

SECRET = "the-key-of-the-farm"
READING = [
    "SELECT * FROM read_csv('{secret}', header = false)",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_parquet('{other}')",
    "SELECT * FROM read_duckdb('{database}')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM parquet_metadata('{other}')",
    "SELECT * FROM parquet_file_metadata('{other}')",
    "SELECT * FROM parquet_kv_metadata('{other}')",
    "SELECT * FROM parquet_schema('{other}')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM query_table('{secret}')",
    "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
    "SELECT i FROM samples WHERE s IN (SELECT content FROM read_text('{secret}'))",
    "WITH x AS MATERIALIZED (SELECT * FROM read_text('{secret}')) SELECT * FROM x",
    "SELECT * FROM read_text('{folder}/../{name}/secret.csv')",
    "SELECT * FROM read_text('file://{secret}')",
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM read_csv('/dev/stdin')",
    "SELECT * FROM read_csv('http://192.0.2.1/x.csv')",
    "SELECT * FROM 'https://192.0.2.1/x.parquet'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "SELECT getenv('ASSAY_TEST_SECRET')",
    "SELECT * FROM a_python_variable",
    "SELECT * FROM sqlite_scan('{secret}', 'x')",
    "SELECT * FROM st_read('{secret}')",
    "SELECT * FROM enable_logging()",
]
"""Questions: each of them one SELECT."""
DOING = [
    "COPY samples TO '{folder}/out.csv'",
    "COPY samples TO '{samples}' (FORMAT parquet)",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "COPY samples FROM '{secret}'",
    "EXPORT DATABASE '{folder}/exported'",
    "IMPORT DATABASE '{folder}'",
    "ATTACH '{folder}/new.db'",
    "ATTACH '{database}' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{secret}'",
    "UPDATE EXTENSIONS",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "SET enable_external_access = true",
    "RESET enable_external_access",
    "SET allowed_paths = ['{secret}']",
    "SET lock_configuration = false",
    "SET temp_directory = '{folder}/spill'",
    "PRAGMA enable_profiling",
    "CALL enable_logging(storage = 'file', storage_path = '{folder}/log')",
    "EXPLAIN ANALYZE COPY samples TO '{folder}/out.csv'",
]
"""Statements that are not questions."""
HARMLESS = [
    "CREATE TABLE t (a INTEGER)",
    "INSERT INTO samples VALUES (1, 'x')",
    "DROP VIEW samples",
    "PREPARE p AS SELECT 1",
    "BEGIN",
    "PIVOT samples ON s USING count(*)",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW samples",
    "",
    "-- nothing",
]
"""Refused as well, though they would touch nothing but the throw-away database."""


class Place:
    """A folder with a table, a secret text, a secret Parquet file and a secret database."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.samples = folder, folder / "samples.parquet"
        pq.write_table(pa.table({"i": range(10), "s": ["x"] * 10}), self.samples)
        pq.write_table(pa.table({"s": [SECRET]}), folder / "other.parquet")
        (folder / "secret.csv").write_text(SECRET + "\n")
        with duckdb.connect(str(folder / "other.db")) as database:
            database.execute(f"CREATE TABLE t AS SELECT '{SECRET}' AS s")
        self.before = self.state()

    def state(self) -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}

    def fill(self, question: str) -> str:
        return question.format(
            folder=self.folder,
            name=self.folder.name,
            samples=self.samples,
            secret=self.folder / "secret.csv",
            other=self.folder / "other.parquet",
            database=self.folder / "other.db",
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = Place(tmp_path_factory.mktemp("place"))
    os.environ["ASSAY_TEST_SECRET"] = SECRET
    yield found
    del os.environ["ASSAY_TEST_SECRET"]


@pytest.fixture(scope="module")
def locked(place: Place) -> duckdb.DuckDBPyConnection:
    return ask_child.locked({"samples": str(place.samples)}, threads=1, memory_mib=256)


@pytest.mark.parametrize("statement", READING + DOING)
def test_duckdb_itself_refuses(
    place: Place, locked: duckdb.DuckDBPyConnection, statement: str
) -> None:
    a_python_variable = pa.table({"s": [SECRET]})
    assert a_python_variable.num_rows == 1
    with pytest.raises(duckdb.Error) as refused:
        pytest.fail(str(locked.execute(place.fill(statement)).fetchall()))
    assert SECRET not in str(refused.value)
    assert place.state() == place.before
    assert locked.execute("SELECT count(*) FROM samples").fetchall() == [(10,)]


@pytest.mark.parametrize("statement", DOING + HARMLESS)
def test_only_one_select_is_a_question(
    place: Place, locked: duckdb.DuckDBPyConnection, statement: str
) -> None:
    with pytest.raises(InputError, match="E-SQL-READING"):
        ask_child.check(locked, place.fill(statement))


@pytest.mark.parametrize(
    "question",
    [
        "SELECT i FROM samples LIMIT 1",
        "FROM samples SELECT i LIMIT 1;",
        "WITH x AS (SELECT 0 AS i) SELECT i FROM x",
        "SELECT i FROM samples -- the first; only\nORDER BY i LIMIT 1",
    ],
)
def test_forms_of_a_question(locked: duckdb.DuckDBPyConnection, question: str) -> None:
    ask_child.check(locked, question)
    assert locked.execute(question).fetchall() == [(0,)]


def test_there_are_no_secrets_to_list(locked: duckdb.DuckDBPyConnection) -> None:
    assert locked.execute("SELECT * FROM duckdb_secrets()").fetchall() == []


def test_the_settings_hold(locked: duckdb.DuckDBPyConnection) -> None:
    found = dict(locked.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    for name, value in ask_child.LOCKS.items():
        assert found[name].lower() == str(value).lower(), name


def test_without_any_lock_the_child_still_cannot_write(place: Place) -> None:
    """The second fence alone: the kernel's limits, DuckDB wide open."""
    code = (
        "import duckdb\n"
        "from orchestrator.export.ask_child import limit\n"
        "limit(256 << 20, 10)\n"
        f"duckdb.execute(\"COPY (SELECT 1) TO '{place.folder}/out.csv'\")\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={})
    assert done.returncode != 0
    left = {path: data for path, data in place.state().items() if data}
    assert left == place.before
    for path in set(place.state()) - set(place.before):
        Path(path).unlink()


@pytest.mark.parametrize(
    ("question", "id"),
    [
        ("SELECT * FROM read_text('{secret}')", "E-SQL-LOCKED"),
        ("COPY samples TO '{folder}/out.csv'", "E-SQL-READING"),
        ("SELECT len(list_sort(range(300000000)))", "E-SQL-MEMORY"),
        ("SELECT repeat('x', 70000000)", "E-SQL-MEMORY"),
        ("SELECT '\udcff'", "E-SQL-QUERY"),
    ],
)
def test_the_whole_way_ends_in_one_line(place: Place, question: str, id: str) -> None:
    with pytest.raises(InputError) as refused:
        ask(place.folder, ["samples"], place.fill(question), Limits(memory_mib=512))
    assert refused.value.id == id
    assert SECRET not in str(refused.value)
    assert place.state() == place.before


def test_a_mistake_is_shown_by_line_and_column(place: Place) -> None:
    with pytest.raises(InputError) as refused:
        ask(place.folder, ["samples"], "SELECT 'é', i\nFROM samples WHERE nope = 1", Limits())
    assert str(refused.value).startswith("line 2, column 20: ")
    assert refused.value.id == "E-SQL-QUERY"


def test_time_is_up_whatever_duckdb_is_doing(place: Place) -> None:
    endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t"
    with pytest.raises(DeadlineError, match="E-SQL-TIMEOUT"):
        ask(place.folder, ["samples"], endless, Limits(timeout_s=0.5))
    assert not children()


def children() -> list[int]:
    mine = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    return [int(pid) for pid in mine if b"ask_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_interrupting_kills_the_child(place: Place) -> None:
    endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t"
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.5, signal.pthread_kill, [main, signal.SIGINT]).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(place.folder, ["samples"], endless, Limits(timeout_s=100))
    assert time.monotonic() - begin < 50
    assert not children()


def test_more_rows_than_the_limit_are_said_to_be_there(place: Place) -> None:
    three = ask(place.folder, ["samples"], "SELECT i FROM samples ORDER BY i", Limits(rows=3))
    assert (three.rows, three.truncated) == (((0,), (1,), (2,)), True)
    ten = ask(place.folder, ["samples"], "SELECT i FROM samples", Limits(rows=10))
    assert (len(ten.rows), ten.truncated) == (10, False)


def test_every_type_becomes_json(place: Place) -> None:
    question = (
        "SELECT NULL, 'nan'::DOUBLE, 1e300::DOUBLE, 1.5::DECIMAL(4, 2), 7::HUGEINT, 'a'::BLOB,"
        " DATE '2026-11-28', TIMESTAMP '2026-11-28 01:02:03', [1, NULL], {'a': 1}, MAP {'k': 2.5},"
        " TRUE, INTERVAL 1 DAY, 18446744073709551615::UBIGINT"
    )
    answer = ask(place.folder, ["samples"], question, Limits())
    assert answer.rows == (
        (
            *(None, None, 1e300, 1.5, 7, "61", "2026-11-28", "2026-11-28T01:02:03"),
            *([1, None], {"a": 1}, {"k": 2.5}, True, "1 day, 0:00:00", 18446744073709551615),
        ),
    )
