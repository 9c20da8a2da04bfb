from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Exit, InputError
from orchestrator.matrix import yamlfile
from orchestrator.matrix.fields import Spec
from orchestrator.matrix.model import Matrix


class Inner(Spec):
    count: int
    ratio: float = 1.0


class Outer(Spec):
    word: str = ""
    words: tuple[str, ...] = ()
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def refusal(tmp_path: Path, text: str | bytes, model: type[Spec] = Outer) -> InputError:
    path = tmp_path / "f.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as caught:
        yamlfile.load(path, model)
    assert caught.value.exit_code == Exit.USAGE
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("text", "id", "line", "says"),
    [
        ("", "E-MATRIX-YAML", None, "empty"),
        ("word: [a,\n", "E-MATRIX-YAML", 2, "not valid YAML"),
        ("word: a\nword: b\n", "E-MATRIX-DUPLICATE", 2, "already on line 1"),
        ("inner:\n  count: 1\n  count: 2\n", "E-MATRIX-DUPLICATE", 3, "'count'"),
        ("word: *b\n", "E-MATRIX-YAML", 1, "undefined alias"),
        ("word: !!python/object/apply:os.system [ls]\n", "E-MATRIX-YAML", 1, "not supported"),
        ("word: !!binary aGk=\n", "E-MATRIX-TYPE", 1, "not a usable"),
        ("inner: &i {count: 1}\nmany:\n  - <<: *i\n", "E-MATRIX-YAML", 3, "merge keys"),
        ("1: 2\n", "E-MATRIX-TYPE", 1, "key must be text"),
        ("[a]: 2\n", "E-MATRIX-TYPE", 1, "key must be text"),
        ("inner:\n  count: 1\n  ratio: .nan\n", "E-MATRIX-TYPE", 3, "not a usable float"),
        ("inner:\n  count: 1\n  ratio: 1e999\n", "E-MATRIX-TYPE", 3, "not a usable float"),
        ("- 1\n", "E-MATRIX-TYPE", 1, "mapping"),
        ("word: a\n---\nword: b\n", "E-MATRIX-YAML", 2, "document"),
        (b"word: a\nwords: [\xff\xfe]\n", "E-MATRIX-YAML", 2, "UTF-8"),
        ("word: a\nwords: [\x07]\n", "E-MATRIX-YAML", 2, "not valid YAML"),
        ("a: &a [*a]\n", "E-MATRIX-SIZE", 1, "too many values"),
        ("#" * (yamlfile.MAX_BYTES + 1), "E-MATRIX-SIZE", None, "larger than"),
        ("inner:\n  count: 1\n  rato: 2\n", "E-MATRIX-KEY", 3, "did you mean 'ratio'?"),
        ("inner:\n  count: 1\n  xyz: 2\n", "E-MATRIX-KEY", 3, "known keys: count, ratio"),
        ("many:\n  - count: 1\n  - count: one\n", "E-MATRIX-TYPE", 3, "many[1].count"),
        ("words: [a,\n 5]\n", "E-MATRIX-TYPE", 2, "put it in quotes"),
        ("words: [a,\n true]\n", "E-MATRIX-TYPE", 2, "put it in quotes"),
        ("word: 1\ninner: {}\n", "E-MATRIX-TYPE", 1, "put it in quotes"),
        ("inner:\n  ratio: 1.0\n", "E-MATRIX-MISSING", 1, "key 'count' is missing in inner"),
        ("inner:\n  count: true\n", "E-MATRIX-TYPE", 2, "integer"),
        ("inner:\n  count: 1.0\n", "E-MATRIX-TYPE", 2, "integer"),
        ("words: a\n", "E-MATRIX-TYPE", 1, "should be a list"),
    ],
)
def test_refusals_name_the_line(
    tmp_path: Path, text: str | bytes, id: str, line: int | None, says: str
) -> None:
    error = refusal(tmp_path, text)
    assert error.id == id
    assert says in str(error)
    expected = str(tmp_path / "f.yaml") + (f":{line}" if line else "")
    assert (error.where or "").startswith(expected)
    assert line is None or error.where == expected


@pytest.mark.parametrize("text", [BOMB, "a: " + "[" * 100_000, "a: " + "{a: " * 50_000])
def test_bombs_are_refused_quickly(tmp_path: Path, text: str) -> None:
    begin = time.monotonic()
    assert refusal(tmp_path, text).id == "E-MATRIX-SIZE"
    assert time.monotonic() - begin < 15


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, "word: 1\nwords: a\ninner:\n  ratio: x\n")
    told = [error, *error.also]
    lines = [str(each.where).rpartition(":")[2] for each in told]
    assert lines == ["1", "2", "4", "3"]
    assert [each.id for each in told] == [*3 * ["E-MATRIX-TYPE"], "E-MATRIX-MISSING"]
    many = "words:\n" + "- 5\n" * (yamlfile.MAX_ERRORS + 7)
    error = refusal(tmp_path, many)
    assert len(error.also) == yamlfile.MAX_ERRORS - 1
    assert "; and 7 more" in str(error.also[-1])


def test_an_unknown_key_is_told_before_what_it_leaves_missing(tmp_path: Path) -> None:
    error = refusal(tmp_path, "version: 1\nmodles: []\n", Matrix)
    assert (error.id, error.fix) == ("E-MATRIX-KEY", "did you mean 'models'?")
    assert (error.where or "").endswith("f.yaml:2")


def test_suggestions_come_from_the_chosen_alternative_of_a_union(tmp_path: Path) -> None:
    text = "models:\n  - task:\n      type: anomaly\n      treshold: 1\n"
    error = refusal(tmp_path, text, Matrix)
    assert (error.where or "").endswith(":4")
    assert error.fix == "did you mean 'threshold'?"
    other = refusal(tmp_path, text.replace("anomaly", "regression"), Matrix)
    assert "threshold" not in str(other.fix)


def test_an_unknown_alternative_lists_the_known_ones(tmp_path: Path) -> None:
    error = refusal(tmp_path, "models:\n  - task:\n      type: detection\n", Matrix)
    assert (error.where or "").endswith(":3")
    assert "'classification', 'regression', 'anomaly'" in str(error.fix)


def test_a_missing_or_unreadable_file_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError) as caught:
            yamlfile.read(path)
        assert caught.value.id == "E-MATRIX-READ"
        assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("~", None),
        ("", None),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("-5", -5),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("'5'", "5"),
        ("1_000", "1_000"),
        ('"a\\tb"', "a\tb"),
    ],
)
def test_words_mean_what_yaml_1_2_says(tmp_path: Path, text: str, value: Any) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(f"key: {text}\n")
    got = yamlfile.read(path).data["key"]
    assert got == value
    assert type(got) is type(value)


def test_aliases_are_expanded_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("words: &w [a, b]\nmany: [{count: 1}, {count: 2}]\nword: x\n")
    assert yamlfile.load(path, Outer).words == ("a", "b")
    path.write_text("a: &a [x, y]\nb: *a\n")
    assert yamlfile.read(path).data == {"a": ["x", "y"], "b": ["x", "y"]}
