from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.reports import format as fmt


def _rate(k: int, n: int, low: float | None, high: float | None) -> dict[str, float | int | None]:
    return {"k": k, "n": n, "rate": k / n if n else None, "low": low, "high": high}


def test_a_rate_shows_its_count_and_interval() -> None:
    assert fmt.rate(_rate(979, 1000, 0.9681, 0.9869)) == "97.9 % (979/1000, 95 % CI 96.8–98.7)"
    assert fmt.rate(_rate(979, 1000, 0.9681, 0.9869), level=False) == "97.9 % (979/1000, 96.8–98.7)"
    assert fmt.counts_in_range(_rate(979, 1000, 0.9681, 0.9869)) == "979/1000 (96.8–98.7 %)"


@pytest.mark.parametrize("value", [None, _rate(0, 0, None, None)])
def test_nothing_counted_is_a_dash_not_zero(value: dict[str, float | int | None] | None) -> None:
    assert {f(value) for f in (fmt.rate, fmt.counts, fmt.counts_in_range)} == {fmt.DASH}


def test_no_percentage_without_an_interval() -> None:
    assert fmt.rate(_rate(3, 7, None, None)) == "3/7"
    assert fmt.counts_in_range(_rate(3, 7, None, None)) == "3/7"
    assert fmt.rate({"k": 3, "n": 7}) == "3/7"


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.0, "0.0"),
        (1.0, "100.0"),
        (0.9996, "99.96"),
        (0.00002, "0.002"),
        (1e-9, "<0.0001"),
        (1 - 1e-9, ">99.9999"),
        (0.5, "50.0"),
    ],
)
def test_rounding_never_turns_almost_into_all_or_none(fraction: float, text: str) -> None:
    assert fmt.percent(fraction) == text


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_only_the_ends_are_shown_as_0_or_100(fraction: float) -> None:
    text = fmt.percent(fraction)
    assert text[0] in "<>" or 0 < float(text) < 100


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.0, "0"),
        (0.97222, "0.9722"),
        (18123.4, "18123"),
        (True, "yes"),
        ("as planned", "as planned"),
        ({"CPU": 12, "DELEGATE": 1}, "CPU 12, DELEGATE 1"),
        ([], "–"),
        (["a", None], "a, –"),
    ],
)
def test_numbers(value: object, text: str) -> None:
    assert fmt.number(value) == text


def test_durations_and_moments() -> None:
    assert [fmt.micros(x) for x in (None, 0.5, 123.4, 12_345, 2_500_000)] == [
        "–",
        "0.5 µs",
        "123 µs",
        "12.3 ms",
        "2.50 s",
    ]
    assert [fmt.seconds(x) for x in (None, 0.0, 12.4, 95.0, 3661.0, 119.7)] == [
        "–",
        "0.00 s",
        "12 s",
        "1 min 35 s",
        "1 h 01 min",
        "2 min 00 s",
    ]
    assert fmt.moment(0.0) == "1970-01-01 00:00:00 UTC"
    assert fmt.moment(None) == "–"


def test_share_of_a_pair_is_a_count() -> None:
    assert fmt.share(0.9, 360) == "324/360"
    assert fmt.share(None, 360) == "–"
    assert fmt.share(0.0, 0) == "–"


def test_control_and_bidi_characters_are_spelt_out() -> None:
    assert fmt.printable("a\x1b[2Jb\n\u202ec\u0085") == "a\\x1b[2Jb\\n\\u202ec\\x85"
    assert fmt.printable("Größe → 模型 #1") == "Größe → 模型 #1"


@given(st.text())
def test_printable_text_fits_one_line_and_can_be_written(text: str) -> None:
    shown = fmt.printable(text)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


def test_not_a_number_is_visible() -> None:
    assert fmt.number(math.nan) == "nan"
