"""Every parser against what devices print: tests/data/sources, one case a file, and nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_worker.telemetry.parsers import FACTS, PARSERS, Value, raspberry
from device_worker.telemetry.parsers.text import Bare
from device_worker.telemetry.plausible import MEANT, UNITS, believed, understood

CASES = sorted((Path(__file__).parents[2] / "data" / "sources").glob("*.json"))


def case(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def read(given_: dict[str, Any]) -> tuple[dict[str, Value], dict[str, str]]:
    """What is believed of a case's texts, as the worker and the coordinator read them."""
    told, doubts = understood(given_["parser"], given_["raw"], given_.get("units"))
    values, more = believed(told)
    return values, {**doubts, **more}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_devices_print_is_understood(path: Path) -> None:
    given_ = case(path)
    assert set(given_) - {"units", "doubts"} == {"parser", "about", "raw", "expected"}
    found, doubts = read(given_)
    assert found == given_["expected"]
    assert doubts == given_.get("doubts", {})
    # Equality takes True for 1 and 1.0 for 1: what is sent must be a plain number or text.
    assert {type(value) for value in found.values()} <= {int, float, str, type(None)}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_line_ends_of_a_terminal_change_nothing(path: Path) -> None:
    given_ = case(path)
    ends = {
        p: t and t.replace("\r\n", "\n").replace("\n", "\r\n") for p, t in given_["raw"].items()
    }
    assert read({**given_, "raw": ends}) == (given_["expected"], given_.get("doubts", {}))


def test_every_parser_has_a_case_and_one_that_knows_nothing_gives_no_zero() -> None:
    told = {case(path)["parser"] for path in CASES}
    assert told == set(PARSERS)
    for name, parser in PARSERS.items():
        for raw in ({}, {"": None}, {"": ""}, {"/sys/x/temp": None}):
            assert set(parser(raw).values()) <= {None}, name


def test_what_a_number_without_a_unit_is_meant_to_count_in_is_known_for_each_parser() -> None:
    bare = {
        case(path)["parser"]
        for path in CASES
        for value in PARSERS[case(path)["parser"]](case(path)["raw"]).values()
        if isinstance(value, Bare)
    }
    assert bare == set(MEANT)
    assert set(MEANT.values()) == set(UNITS)


def test_the_facts_that_a_parser_may_tell_are_those_of_its_cases() -> None:
    told: dict[str, set[str]] = {}
    for path in CASES:
        names = {name for name in case(path)["expected"] if "/" not in name}
        if names:
            told.setdefault(case(path)["parser"], set()).update(names)
    assert told == FACTS


def lines_of_cases() -> list[str]:
    return [text for path in CASES for text in case(path)["raw"].values() if text]


def paths_of_cases() -> list[str]:
    return sorted({name for path in CASES for name in case(path)["raw"]})


NUMBERS = st.sampled_from(["-1", "9" * 5000, "1e999", "NaN", "²", "0x", "-", "1_0", "٣", ""])
TEXTS = st.none() | st.text(max_size=200) | NUMBERS | st.sampled_from(lines_of_cases())
PATHS = st.text(max_size=30) | st.sampled_from(paths_of_cases())


@given(name=st.sampled_from(sorted(PARSERS)), raw=st.dictionaries(PATHS, TEXTS, max_size=6))
@settings(max_examples=600)
def test_no_parser_raises_or_says_what_json_cannot(name: str, raw: dict[str, str | None]) -> None:
    found = PARSERS[name](raw)
    assert all(isinstance(value, int | float | str | None) for value in found.values())
    json.dumps(found, allow_nan=False)


@given(
    index=st.integers(0, len(CASES) - 1),
    cut=st.integers(0, 3000),
    junk=st.text(max_size=20) | NUMBERS,
)
@settings(max_examples=600)
def test_damaged_output_raises_nothing(index: int, cut: int, junk: str) -> None:
    given_ = case(CASES[index])
    raw = {
        path: text and text[:cut] + junk + text[cut + 5 :] for path, text in given_["raw"].items()
    }
    json.dumps(PARSERS[given_["parser"]](raw), allow_nan=False)


@pytest.mark.timeout(100)
def test_no_text_keeps_a_parser_busy_for_long() -> None:
    """As much of it as a command may print; a parser that is quadratic in it takes minutes."""
    pieces = ["RAM CPU [", "RAM ([", "[a]: [\n", "[a]: [", "Temperature{mValue=", "a: b\n", "9"]
    for piece in pieces:
        text = piece * ((1 << 18) // len(piece))
        for parser in PARSERS.values():
            parser({"": text})
            parser({"/sys/a/temp": text, "/sys/a/name": text})


def test_throttle_flags_in_words() -> None:
    assert raspberry.words(0) == []
    assert raspberry.words(0x50005) == [
        "under-voltage now",
        "throttled now",
        "under-voltage since start",
        "throttled since start",
    ]


@pytest.mark.parametrize(
    ("before", "after", "came"),
    [
        (0, 0, []),
        (0x50000, 0x50000, []),  # of another time
        (0, 0x10000, ["under-voltage"]),  # over by now, and no look met it
        (0x50000, 0xD0008, ["soft temperature limit"]),
        (0x50000, 0x50005, ["under-voltage", "throttled"]),
        (0, None, None),
        (None, 0, None),
    ],
)
def test_sticky_bits_are_compared_with_those_before(
    before: int | None, after: int | None, came: list[str] | None
) -> None:
    assert raspberry.happened(before, after) == came
