"""Inventories of any content: read, or refused in one line. The last line says how many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from orchestrator.errors import InputError
from orchestrator.matrix.loader import load_inventories

SOUND: dict[str, Any] = {
    "version": 1,
    "devices": [
        {
            "name": "desk-pi",
            "class": "rpi4",
            "tags": ["lab", "arm"],
            "transport": {"type": "ssh", "host": "192.0.2.17", "user": "pi", "port": 22},
            "python": {"default": "/usr/bin/python3"},
            "env": {"OMP_NUM_THREADS": "1"},
            "cache_limit": "1.5GiB",
        },
        {
            "name": "pixel",
            "class": "android-arm64",
            "transport": {"type": "adb", "serial": "2A011FDH200ABC"},
            "python": {"litert": "bundle:aarch64-litert"},
            "power": ["*"],
        },
        {
            "name": "here",
            "class": "host",
            "transport": {"type": "local", "root": "root"},
            "delegates": {"npu": {"library": "libnpu.so", "options": {"a": "b"}}},
            "reset": ["uhubctl", "-a", "cycle"],
        },
    ],
}
TEXT = yaml.safe_dump(SOUND, sort_keys=False)
ODD = st.sampled_from(
    ["", "~", "\0", "\ud800", "../..", "/", "\x1b[2J", "=1+1", "a" * 5000, "{}", "%n", "${PYTHON}",
     "bundle:", "bundle:../x", "-1", "1e309", "٣", "\u202e", "[::1]", "a\nb", " ", "*", "[",
     "~root"]
)  # fmt: skip
SCALARS = st.one_of(
    ODD,
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD | st.text(), inner, max_size=3),
    max_leaves=6,
)
BITS = st.sampled_from(
    [b"&a ", b"*a", b"!!python/object:os.system ", b"!!binary ", b"<<: ", b"- ", b": ", b"{", b"}",
     b"[", b"]", b'"', b"'", b"|\n", b">\n", b"\t", b"\r", b"\0", b"\xff\xfe", b"\xef\xbb\xbf",
     b'"\\ud800"', b'"\\x00"', b"\n---\n", b"...", b"%YAML 9.9\n", b"?", b"#", b"\xe2\x80\xae",
     b"[" * 300, b"{a: " * 100]
)  # fmt: skip
FUZZ = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_tried: dict[str, int] = {}


@pytest.fixture(scope="module", autouse=True)
def _count(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    told = ", ".join(f"{n} {what}" for what, n in _tried.items())
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\ninventories tried: {told}")  # noqa: T201


def read(folder: Path, text: bytes, what: str) -> None:
    """Load it; a refusal is one line that names the file and shows nothing that moves a cursor."""
    _tried[what] = _tried.get(what, 0) + 1
    path = folder / "inventory.yaml"
    path.write_bytes(text)
    try:
        found = load_inventories((path,))
    except InputError as error:
        line = str(error)
        assert "\n" not in line
        assert str(path) in line
        assert len(line) < 20_000
    else:
        assert found.devices


def paths(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    found = []
    for key, value in inner:
        found.append((*at, key))
        if isinstance(value, dict | list):
            found += paths(value, (*at, key))
    return found


PATHS = paths(SOUND)


def changed(path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(TEXT)
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    change(place, path[-1])
    return data


@FUZZ
@given(st.sampled_from(PATHS), VALUES)
def test_any_value_in_any_place(tmp_path: Path, path: tuple[Any, ...], value: Any) -> None:
    data = changed(path, lambda place, key: place.__setitem__(key, value))
    read(tmp_path, _dumped(data), "with another value")


@FUZZ
@given(st.sampled_from(PATHS), ODD | st.text(max_size=8), VALUES)
def test_any_key_beside_any_other(
    tmp_path: Path, path: tuple[Any, ...], key: str, value: Any
) -> None:
    def add(place: Any, at: Any) -> None:
        if isinstance(place, dict):
            place[key] = value
        else:
            place.insert(at, value)

    read(tmp_path, _dumped(changed(path, add)), "with another key")


@FUZZ
@given(st.data())
def test_any_bytes_among_its_own(tmp_path: Path, data: st.DataObject) -> None:
    text = TEXT.encode()
    for _ in range(data.draw(st.integers(1, 3))):
        at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 20))
        text = text[:at] + data.draw(BITS | st.binary(max_size=8)) + text[at + length :]
    read(tmp_path, text, "with other bytes")


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"[]", b"version: 1", b"version: 1\ndevices: []", b"\xff" * 100,
        b"version: 1\ndevices: [" * 50, b"version: 1\ndevices: " + b"[" * 5000,
        b"version: 1\ndevices: &a [*a]", b"a: &a {b: *a}",
        b"version: 1\ndevices:\n- !!python/object/apply:os.system ['id']",
        b"version: 1" + b"0" * 4000, b"version: 0x" + b"f" * 5000,
        b'version: 1\ndevices: [{name: "\\ud800", class: c, transport: {type: local}}]',
        b'version: 1\ndevices: [{name: d, class: c, notes: "\\ud800", transport: {type: local}}]',
        b"? [complex, key]\n: 1", b"---\na: 1\n---\nb: 2", b"version: 1\n" * 70_000,
    ],
)  # fmt: skip
def test_what_people_and_attackers_write(text: bytes, tmp_path: Path) -> None:
    read(tmp_path, text, "by hand")


def _dumped(data: Any) -> bytes:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=False).encode("utf-8", "replace")
