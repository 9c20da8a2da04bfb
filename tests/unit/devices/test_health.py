"""States, exit codes, the JSON document and the printed checklist."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import pytest

from orchestrator.devices.health import (
    Health,
    Item,
    State,
    bad,
    document,
    exit_code,
    failed,
    nothing,
    ok,
    unknown,
)
from orchestrator.errors import Exit, InfraError
from orchestrator.reports.checklist import checklist, marks, total

GOOD = Health("a", "c", (ok("x", "fine"), nothing("y", "none")), seconds=1.26)
WRONG = Health("b", "c", (ok("x", "fine"), bad("y", "broken", "fix it", "E-LINK")))
DOUBT = Health("d", "c", (ok("x", "fine"), unknown("y", "who knows")))
USED = Health("e", "c", in_use="host pid 7")


@pytest.mark.parametrize(
    ("devices", "code"),
    [
        ([GOOD], Exit.PASS),
        ([GOOD, DOUBT], Exit.INCONCLUSIVE),
        ([GOOD, DOUBT, WRONG], Exit.INFRA),
        ([USED], Exit.INCONCLUSIVE),
        ([Health("n", "c", (nothing("x", ""),))], Exit.INCONCLUSIVE),
        ([], Exit.INCONCLUSIVE),
    ],
)
def test_exit_codes(devices: list[Health], code: Exit) -> None:
    assert exit_code(devices) is code


def test_the_document_follows_its_schema() -> None:
    text = resources.files("orchestrator.reports.schema").joinpath("check-2.json").read_text()
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    told = json.loads(json.dumps(document([GOOD, WRONG, DOUBT, USED])))
    validator.validate(told)
    assert told["count"] == {"ok": 1, "bad": 1, "unknown": 2}
    del told["devices"][0]["items"][0]["fix"]
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(told)


def test_a_step_that_raised_is_wrong_unless_somebody_else_has_the_device() -> None:
    error = InfraError("E-LINK", "pi: down\nat once", fix="check it")
    assert failed("reach", error, "pi") == bad("reach", "down at once", "check it", "E-LINK")
    held = InfraError("E-LEASE-HELD", "held", where="pi")
    assert failed("lease", held, "pi").state is State.UNKNOWN


def test_the_checklist_says_what_is_wrong_and_how_to_fix_it() -> None:
    lines = checklist(WRONG).splitlines()
    assert lines[0].startswith("✗ b (c): 1 wrong, 1 right")
    assert lines[2] == "  ✗ y  broken [E-LINK]"
    assert lines[3].strip() == "fix: fix it"
    assert "in use by host pid 7" in checklist(USED)
    assert total([GOOD, WRONG, USED]) == "3 device(s): 1 fit for use, 1 not, 1 not known"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", None, "no-such"])
def test_marks_that_any_terminal_can_write(encoding: str | None) -> None:
    text = checklist(Health("d", "c", (Item("x", State.BAD, "f"),)), marks(encoding))
    assert text.encode("ascii")
