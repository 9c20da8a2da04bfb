"""Every error ID in the sources stands in docs/errors.md, with one meaning and one exit code."""

from __future__ import annotations

import ast
import copy
import importlib
import pickle
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.errors import AssayError, DamageError, Exit, InfraError, InputError

ROOT = Path(__file__).parents[2]
ID = re.compile(r"E-[A-Z0-9]+(?:-[A-Z0-9]+)*")
ROW = re.compile(r"^\| (E-[A-Z0-9-]+) \| ([0-9]+) \| (.+) \| (.+) \|$", re.MULTILINE)

CODE_OF_CALL: dict[str, Exit] = {
    **{c.__name__: c.exit_code for c in (InputError, InfraError, DamageError)},
    "DeadlineError": Exit.TIMEOUT,
    "ModelError": Exit.FAIL,
    "NotAvailableError": Exit.INCONCLUSIVE,
    # Helpers that take the ID.
    "problem": Exit.USAGE,
    "Problem": Exit.USAGE,
    "fail": Exit.USAGE,
    "_late": Exit.TIMEOUT,
    "refuse": Exit.INFRA,
}
CODE_OF_KIND = {
    "infra_error": Exit.INFRA,
    "model_error": Exit.FAIL,
    "not_available": Exit.INCONCLUSIVE,
    "stale": Exit.INFRA,
}
CODE_OF_STATE = {
    "INFRA_ERROR": Exit.INFRA,
    "TIMEOUT": Exit.TIMEOUT,
    "CANCELLED": Exit.INCONCLUSIVE,
}
"""A cancelled attempt is no answer: until the run is resumed its cell is not covered."""

BY_VARIABLE = {
    "E-INPUT-HASH": Exit.INFRA,
    "E-MODEL-HASH": Exit.INFRA,
    "E-MODEL-RUN": Exit.FAIL,
    "E-RUNTIME-MISSING": Exit.INCONCLUSIVE,
    "E-SOAK-CEILING": Exit.INCONCLUSIVE,
    "E-WORKER-ERROR": Exit.INFRA,
}
"""IDs that no call shows together with their kind, looked up by hand."""


def sources() -> Iterator[Path]:
    for package in ("orchestrator", "device_worker"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "contract" not in path.parts:  # tests that ship with the transports
                yield path


def ids_in_sources() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if (text := literal(node)) is not None and ID.fullmatch(text):
                found[text].add(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    return found


def literal(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def codes_in_sources() -> dict[str, dict[Exit, str]]:
    """ID -> exit code -> one place that says so, for every call that shows both."""
    found: dict[str, dict[Exit, str]] = defaultdict(dict)
    for path in sources():
        tree = ast.parse(path.read_text())
        for scope in ast.walk(tree):
            bases = (
                [b.id for b in scope.bases if isinstance(b, ast.Name)]
                if isinstance(scope, ast.ClassDef)
                else []
            )
            for node in ast.walk(scope) if bases or isinstance(scope, ast.Module) else ():
                if isinstance(node, ast.Call):
                    for id, code in shown(node, bases):
                        found[id][code] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def shown(call: ast.Call, bases: list[str]) -> Iterator[tuple[str, Exit]]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    texts = [literal(a) for a in call.args[:2]]
    if name == "__init__" and bases:
        name = bases[0]
    if name == "fail" and len(texts) == 2:
        texts = texts[1:]  # _Plain.fail(node, id, …)
    if name in CODE_OF_CALL and texts and texts[0] and ID.fullmatch(texts[0]):
        yield texts[0], CODE_OF_CALL[name]
    if name == "WorkerError" and len(texts) == 2 and texts[0] and texts[1]:
        yield texts[1], CODE_OF_KIND[texts[0]]
    if name == "AttemptRecord" and call.args and isinstance(call.args[0], ast.Attribute):
        for keyword in call.keywords:
            id = literal(keyword.value)
            if keyword.arg == "error_id" and id:
                yield id, CODE_OF_STATE[call.args[0].attr]


def documented() -> list[tuple[str, int, str, str]]:
    text = (ROOT / "docs" / "errors.md").read_text()
    return [(id, int(code), when, fix) for id, code, when, fix in ROW.findall(text)]


def test_the_list_is_complete_and_names_nothing_that_is_gone() -> None:
    listed = [id for id, *_ in documented()]
    assert len(listed) == len(set(listed)), "an ID is listed twice"
    used = ids_in_sources()
    assert {id: used[id] for id in set(used) - set(listed)} == {}
    assert set(listed) - set(used) == set()


def test_every_row_of_the_page_is_understood_by_this_test() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    assert text.count("\n| E-") == len(documented())


def test_each_id_has_one_exit_code_and_the_page_says_it() -> None:
    seen = codes_in_sources()
    assert {id: places for id, places in seen.items() if len(places) > 1} == {}
    codes = {id: next(iter(places)) for id, places in seen.items()}
    for id, code in BY_VARIABLE.items():
        assert codes.setdefault(id, code) == code, id
    assert {
        id: (code, codes.get(id)) for id, code, *_ in documented() if codes.get(id) != code
    } == {}


def test_each_id_has_a_meaning_of_its_own() -> None:
    meanings = [when for _, _, when, _ in documented()]
    assert sorted(meanings) == sorted(set(meanings))


def error_classes() -> list[type[AssayError]]:
    """Every subclass there is: those of modules that define one are found by reading them."""
    known = {c.__name__ for c in vars(errors).values() if isinstance(c, type)}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(b, ast.Name) and b.id in known and b.id.endswith("Error")
                for b in node.bases
            ):
                importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))

    def below(cls: type[AssayError]) -> Iterator[type[AssayError]]:
        yield cls
        for child in cls.__subclasses__():
            yield from below(child)

    return list(below(AssayError))


@pytest.mark.parametrize("cls", error_classes(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("way", ["pickle", "copy"])
def test_errors_cross_process_borders_whole(cls: type[AssayError], way: str) -> None:
    try:
        error = cls("E-LINK", "what {x}", where="m.yaml:3", fix="so")
    except TypeError:
        error = cls("what {x}")  # type: ignore[call-arg]  # a class with an ID of its own
    back = pickle.loads(pickle.dumps(error)) if way == "pickle" else copy.copy(error)
    assert type(back) is cls
    assert vars(back) == vars(error)
    assert (str(back), back.args, back.exit_code) == (str(error), error.args, error.exit_code)


def test_whether_to_retry_survives_pickling() -> None:
    for retryable in (True, False):
        error = InfraError("E-LINK", "down", retryable=retryable)
        assert pickle.loads(pickle.dumps(error)).retryable is retryable


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    text = str(InputError("E-USAGE", "one\ntwo\r\n  three", where="a\nb", fix="do\nthis"))
    assert text == "a b: one two three (do this) [E-USAGE]"


def retried_in_sources() -> dict[str, set[bool]]:
    """ID -> may it be retried, of every error that can end an attempt."""
    found: dict[str, set[bool]] = defaultdict(set)
    for path in sources():
        if not {"transports", "devices", "fanout", "device_worker"} & set(path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            texts = [literal(a) for a in node.args[:2]]
            if node.func.id == "WorkerError" and len(texts) == 2 and texts[1]:
                found[texts[1]].add(texts[0] == "infra_error")
            if node.func.id == "InfraError" and texts and texts[0]:
                no = any(
                    k.arg == "retryable" and isinstance(k.value, ast.Constant) and not k.value.value
                    for k in node.keywords
                )
                found[texts[0]].add(not no)
    return found


def test_the_page_says_which_errors_are_tried_again() -> None:
    marked = {id: when.startswith("↻ ") for id, _, when, _ in documented()}
    ends_the_run = {"E-HUB-SPOOL"}
    wrong = {
        id: retried
        for id, retried in retried_in_sources().items()
        if len(retried) == 1 and id not in ends_the_run and marked[id] not in retried
    }
    assert wrong == {}
