"""One definition: what is written, listed and documented are the same tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.errors import InfraError, InputError
from orchestrator.export.ask import wanted
from orchestrator.export.parquet import new_folder
from orchestrator.export.tables import TABLES

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "sql.md"


def test_every_column_has_one_name_and_a_meaning() -> None:
    for table in TABLES.values():
        names = [c.name for c in table.columns]
        assert len(set(names)) == len(names), table.name
        assert all(c.meaning for c in table.columns)
        assert table.schema.field("run").metadata == {b"meaning": b"run ID"}


def test_the_guide_lists_the_tables() -> None:
    assert re.findall(r"^\| `(\w+)` \|", GUIDE.read_text(), re.MULTILINE) == list(TABLES)


def test_a_question_gets_every_table_whose_name_it_says() -> None:
    assert wanted("SELECT 1") == set()
    assert wanted("FROM Samples s JOIN main.attempts") == {"samples", "attempts"}
    assert wanted("FROM query('FROM pairs')") == {"pairs"}
    assert wanted("FROM problems") == set(TABLES)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "tables"
    with pytest.raises(ZeroDivisionError), new_folder(target) as folder:
        _fail_half_way(folder)
    assert list(target.parent.iterdir()) == []
    target.mkdir()
    with new_folder(target) as folder:
        (folder / "whole").write_text("x")
        assert list(target.iterdir()) == []
    assert [p.name for p in target.parent.iterdir()] == ["tables"]
    assert (target / "whole").read_text() == "x"


def _fail_half_way(folder: Path) -> None:
    (folder / "half").write_text("x")
    raise ZeroDivisionError


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for taken in (tmp_path, tmp_path / "file", tmp_path / "link"):
        with pytest.raises(InputError, match="E-EXPORT-FOLDER"), new_folder(taken):
            pytest.fail("entered")
    with pytest.raises(InfraError, match="E-EXPORT-WRITE"), new_folder(tmp_path / "file" / "x"):
        pytest.fail("entered")
    assert (tmp_path / "file").read_text() == "mine"
