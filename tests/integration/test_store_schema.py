"""Migrations: what they build, who may run them, and what other files are answered with."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from orchestrator.errors import InfraError, InputError
from orchestrator.store import fingerprints, packs, tables
from orchestrator.store.database import Store, upgrade
from orchestrator.store.engine import Database
from orchestrator.store.readonly import glance
from orchestrator.store.schema import HEAD, HISTORY, MIGRATIONS


def set_revision(root: Path, revision: str) -> None:
    with sqlite3.connect(root / "assay.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
    connection.close()


def look(root: Path) -> None:
    with glance(root):
        pass


def test_the_migrations_build_exactly_the_models(tmp_path: Path) -> None:
    assert tables.Run.__tablename__ in SQLModel.metadata.tables
    with Store.open(tmp_path) as store, store.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_the_known_history_is_that_of_the_migration_files() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    newest_first = [revision.revision for revision in script.walk_revisions()]
    assert tuple(reversed(newest_first)) == HISTORY
    assert script.get_current_head() == HEAD


def test_a_database_is_durable_by_its_settings(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, store.database.read() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragma == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }


def test_an_unknown_schema_is_from_a_newer_assay(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    set_revision(tmp_path, "9999")
    for act in (
        lambda: Store.open(tmp_path),
        lambda: Store.open(tmp_path, readonly=True),
        lambda: upgrade(tmp_path),
        lambda: look(tmp_path),
    ):
        with pytest.raises(InfraError, match="E-STORE-NEW") as caught:
            act()
        assert not caught.value.retryable


def old_store(root: Path, revision: str) -> None:
    """A store as an Assay of that revision made it, with a finished attempt in it."""
    root.mkdir(exist_ok=True)
    database = Database(root / "assay.db", readonly=False, busy_timeout=10)
    with database.write() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    database.close()
    with sqlite3.connect(root / "assay.db") as plain:
        plain.executescript(
            """INSERT INTO device (name, device_class, emulated, identity, first_seen, last_seen)
              VALUES ('pi', 'rpi-4', 0, '{}', 1, 2);
            INSERT INTO run (id, name, state, retry_infra, created, frozen)
              VALUES ('r1', 'old', 'running', 2, 1, '{}');
            INSERT INTO slot VALUES ('r1', 'pi', 0, '["pi"]', 'pi');
            INSERT INTO cell (run, id, position, slot, model, file, inputs, condition, runtime,
              env_key, state, outcome, attempt, failures) VALUES
              ('r1', 'c0', 0, 'pi', 'm', 'f', 'i', 'clean', 'ort', 'ort', 'done', 'ok', 'a0', 0),
              ('r1', 'c1', 1, 'pi', 'm', 'f', 'i', 'hot', 'ort', 'ort', 'pending', NULL, NULL, 0);
            INSERT INTO attempt (id, run, cell, number, device, token, state, claimed, retryable)
              VALUES ('a0', 'r1', 'c0', 1, 'pi', 1, 'ok', 5, 0);"""
        )
    plain.close()


@pytest.mark.parametrize("revision", HISTORY[:-1])
def test_an_older_schema_asks_for_the_upgrade_and_keeps_what_it_holds(
    tmp_path: Path, revision: str
) -> None:
    old_store(tmp_path, revision)
    for act in (lambda: Store.open(tmp_path), lambda: look(tmp_path)):
        with pytest.raises(InfraError, match="assay store upgrade") as caught:
            act()
        assert caught.value.id == "E-STORE-OLD"
    assert upgrade(tmp_path) == (revision, HEAD)
    with Store.open(tmp_path) as store:
        (before,) = store.attempts("r1")
        assert (before.id, before.state, before.offline) == ("a0", "ok", None)
        packs.claim(store, "r1", "pi", ["c0", "c1"], "n0", lambda claims: {"jobs": len(claims)})
        (pack,) = store.packs("r1")
        assert (pack.nonce, pack.device, pack.manifest) == ("n0", "pi", {"jobs": 1})
        assert list(pack.out.values()) == ["c1"]
        fingerprints.save(store, "pi", "onnxruntime", "1.31.1", {"machine": "x"}, {"sha256": "f"})
        assert [f.sha256 for f in store.fingerprints()] == ["f"]
        with store.database.read() as connection:
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, SQLModel.metadata) == []


def test_upgrade_tells_from_where_to_where(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="E-STORE-MISSING"):
        upgrade(tmp_path)
    (tmp_path / "assay.db").touch()
    assert upgrade(tmp_path) == (None, HEAD)
    assert upgrade(tmp_path) == (HEAD, HEAD)
    Store.open(tmp_path).close()


def test_a_failing_migration_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "migrations"
    (broken / "versions").mkdir(parents=True)
    for name in ("env.py", "versions/0001_initial.py"):
        text = (MIGRATIONS / name).read_text()
        (broken / name).write_text(text)
    path = broken / "versions" / "0001_initial.py"
    path.write_text(path.read_text() + "\n    op.execute('SELECT nonsense FROM nowhere')\n")
    root = tmp_path / "farm"
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.store.migrate.MIGRATIONS", broken)
        with pytest.raises(InfraError, match="E-STORE-DB"):
            Store.open(root)
    with sqlite3.connect(root / "assay.db") as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()
    Store.open(root).close()


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "assay.db") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    for act in (lambda: Store.open(tmp_path), lambda: upgrade(tmp_path)):
        with pytest.raises(InfraError, match="E-STORE-CORRUPT"):
            act()
    with pytest.raises(InputError, match="E-STORE-MISSING"):
        look(tmp_path)
