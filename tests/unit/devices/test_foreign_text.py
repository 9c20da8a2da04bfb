"""Fuzzed words of foreign programs and drivers: adb's listings, and every source of sensors.

What devices really print (tests/data), cut, mixed, doubled and with other numbers in it. Nothing
may be raised outside AssayError, and no reading let through that cannot be.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_worker.telemetry.parsers import PARSERS
from device_worker.telemetry.plausible import KINDS, believed, lines, understood
from device_worker.telemetry.sensors import hottest
from orchestrator.devices import scan
from orchestrator.devices.facts import collect
from orchestrator.devices.sensing import checked
from orchestrator.errors import InfraError
from orchestrator.fanout.start_gate import unmet
from orchestrator.matrix.device_class import SourceSpec, load_classes
from orchestrator.reports.proposals import document, rendered
from orchestrator.transports import AdbSettings, adb
from orchestrator.transports.adb_devices import AdbDevice, choose, parse_devices

DATA = Path(__file__).parents[2] / "data"
SOURCES = [json.loads(path.read_text()) for path in sorted((DATA / "sources").glob("*.json"))]
LISTINGS = [json.loads(p.read_text())["text"] for p in sorted((DATA / "adb").glob("*.json"))]

NUMBERS = [
    *("0", "-0", "1", "-1", "98", "480", "1250", "45277", "127000", "-273000", "2147483647"),
    *("-2147483648", "1e308", "1e999", "NaN", "inf", "-inf", "0x50005", "1_0", "٣", "²", "-", "."),
    *("9" * 19, "9" * 400, "18446744073709551615", "0.098", "-256", "-99.9", "65535", "1.7e3"),
]
JUNK = st.sampled_from(
    ["\r\n", "\n\n", "\t", "\0", "\x1b[2J", "\ud800", "￿", "  ", ":", "=", "[", "]", "{", "%", "@",
     "°", "device", "unknown", "N/A", "(no serial number)", "no permissions", "usb:", "3-1", "C/"]
) | st.text(max_size=6)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """A text as another release, a worse link or a broken driver would give it."""
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            text = text[:at]
        elif kind == 1:
            text = text[:at] + draw(JUNK) + text[at:]
        elif kind == 2:
            text = text[:at] + text[at + draw(st.integers(1, 40)) :]
        elif kind == 3:
            text = text[:at] + text[max(0, at - draw(st.integers(1, 80))) :]
        elif kind == 4:
            text = text.replace("\n", draw(st.sampled_from(["\r\n", "\r", "", " "])))
        else:
            found = list(re.finditer(r"-?[0-9.]+", text))
            if found:
                match = draw(st.sampled_from(found))
                text = text[: match.start()] + draw(st.sampled_from(NUMBERS)) + text[match.end() :]
    return text


@st.composite
def source(draw: st.DrawFn) -> tuple[str, dict[str, str | None]]:
    """A parser and the texts of its source; seldom those of another."""
    case = draw(st.sampled_from(SOURCES))
    raw = {p: t if t is None else draw(damaged(t)) for p, t in case["raw"].items()}
    other = draw(st.integers(0, 9)) == 0
    return (draw(st.sampled_from(sorted(PARSERS))) if other else case["parser"]), raw


def check_source(found: tuple[str, dict[str, str | None]]) -> None:
    parser, raw = found
    told, doubts = understood(parser, raw)
    values, more = believed(told)
    for name, value in values.items():
        assert isinstance(value, int | float | str | None)
        if isinstance(value, int | float):
            kinds = [start for start in KINDS if name.startswith(start)]
            kind = KINDS[max(kinds, key=len)] if kinds else None
            assert math.isfinite(value), name
            assert kind is None or kind.low <= value <= kind.high, name
            assert not name.startswith("temp/") or abs(value) >= 0.5, name
    assert all(values.get(name) is None for name in more)
    json.dumps([values, doubts, more, lines(doubts | more)], allow_nan=False)
    # The coordinator's side of the same texts, by its shell and as a worker's answer.
    spec = SourceSpec.model_validate({"parser": parser, "path": ("/x",)})
    assert collect([(spec, raw)]).values() == values
    again, _ = checked({"reading": {"values": told}, "doubts": doubts})
    celsius = hottest(again)
    assert unmet(again, max_start_c=60)[:1] or (celsius is not None and 0.5 <= abs(celsius) <= 60)


def check_listing(text: str) -> None:
    devices = parse_devices(text)
    for device in devices:
        assert device.serial
        assert device.state
        assert diagnosis(devices, device.serial).startswith(("E-ADB-", "ready", "no setting"))


def diagnosis(devices: list[AdbDevice], serial: str) -> str:
    """What somebody is told whose inventory names this serial."""
    try:
        asked = AdbSettings(serial=serial)
    except ValueError:
        return "no setting"
    try:
        return f"ready {choose(devices, asked, 'phone').usb}"
    except InfraError as error:
        return error.id


def counted(check: Callable[[Any], None], inputs: st.SearchStrategy[Any], most: int) -> int:
    """How many inputs were tried, all of them without a fault."""
    count = 0

    @settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def run(one: Any) -> None:
        nonlocal count
        count += 1
        check(one)

    run()
    return count


def tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """Where whoever reads the log of a green run sees it."""
    with capsys.disabled():
        sys.stdout.write(f"\n{line}\n")


def test_no_words_of_a_driver_or_a_tool_raise_or_pass_as_what_they_cannot_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    count = counted(check_source, source(), 800)
    tell(capsys, f"fuzzed sensor text: {count} inputs")
    assert count >= 500


def test_no_listing_of_adb_raises_anything_but_its_diagnosis(
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = st.sampled_from(LISTINGS).flatmap(damaged)
    count = counted(check_listing, texts, 500)
    tell(capsys, f"fuzzed adb listings: {count} inputs")
    assert count >= 300


def test_every_unit_of_a_fuzzed_listing_is_a_line_of_the_scan(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = load_classes()

    def refused(*_: object, **__: object) -> Any:
        raise InfraError("E-LINK", "nobody is there")

    def check(text: str) -> None:
        devices = parse_devices(text)
        monkeypatch.setattr(adb, "list_devices", lambda *_: devices)
        found = scan.scan_adb("adb", 5137, (), classes)
        assert [one.address for one in found] == [device.serial for device in devices]
        assert all(one.error == "E-LINK" or (one.error and one.fix) for one in found)
        assert len(rendered(found, 0).splitlines()) == len(found) + 1
        json.dumps(document(found, 0))

    monkeypatch.setattr(scan, "open_transport", refused)
    count = counted(check, st.sampled_from(LISTINGS).flatmap(damaged), 80)
    tell(capsys, f"fuzzed scans: {count} listings")
    assert count >= 50
