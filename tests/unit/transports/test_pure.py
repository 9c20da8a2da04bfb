"""Lines, command words and settings: no process but sh."""

from __future__ import annotations

import io
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import InputError
from orchestrator.transports import MAX_LINE, SshSettings, TransportSettings, command, failures
from orchestrator.transports.bounded import bounded
from orchestrator.transports.lines import TAIL, LineBuffer, LineTooLongError, Tail

WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@given(st.binary(), st.integers(1, 7))
def test_lines_are_what_split_says(data: bytes, step: int) -> None:
    buffer, lines, stream = LineBuffer(), [], io.BytesIO(data)
    while chunk := stream.read(min(step, buffer.room())):
        buffer.feed(chunk)
        while (line := buffer.take()) is not None:
            lines.append(line)
    if (rest := buffer.rest()) is not None:
        lines.append(rest)
    assert lines == data.removesuffix(b"\n").split(b"\n") if data else lines == []
    assert buffer.rest() is None


def test_line_of_the_greatest_length_and_one_more() -> None:
    buffer = LineBuffer()
    buffer.feed(b"x" * buffer.room())
    with pytest.raises(LineTooLongError):
        buffer.take()
    assert buffer.room() == MAX_LINE + 1
    with pytest.raises(LineTooLongError):
        buffer.take()
    buffer = LineBuffer()
    buffer.feed(b"x" * (buffer.room() - 1))
    assert buffer.take() is None
    assert buffer.room() == 1
    buffer.feed(b"\n")
    assert buffer.take() == b"x" * MAX_LINE


@given(st.lists(st.binary(max_size=2 * TAIL), max_size=5))
def test_tail(parts: list[bytes]) -> None:
    tail = Tail()
    for part in parts:
        tail.feed(part)
    assert tail.text() == b"".join(parts)[-TAIL:].decode("utf-8", "replace")


@given(
    WORDS, st.dictionaries(NAMES, st.text(st.characters(codec="utf-8", exclude_characters="\0")))
)
def test_words_reach_the_program_through_a_shell(words: list[str], env: dict[str, str]) -> None:
    reserved = {"PATH", "_", "PWD", "OLDPWD", "SHLVL", "IFS", "LC_ALL", "LANG"}
    env = {k: v for k, v in env.items() if k not in reserved}
    argv = ["env", "-0", "printf", "%s\\0", *words]
    line = command.quoted(
        ["sh", "-c", 'env -0; shift; printf "%s\\0" "$@"', *argv[:3], *words], env, "n"
    )
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    prelude = command.Prelude("n")
    rest = prelude.feed(done.stdout)
    assert prelude.pid is not None
    items = rest.split(b"\0")[:-1]
    seen = dict(i.decode(errors="replace").split("=", 1) for i in items if b"=" in i)
    for name, value in env.items():
        assert seen[name] == value
    if words:
        assert [i.decode() for i in items[-len(words) :]] == words


@given(st.binary(max_size=50), st.binary(max_size=50), st.integers(1, 9))
def test_prelude_is_found_however_it_is_cut(noise: bytes, rest: bytes, step: int) -> None:
    nonce = "0123456789abcdef"
    data = noise + nonce.encode() + b":4711\n" + rest
    prelude = command.Prelude(nonce)
    got = b"".join(prelude.feed(data[i : i + step]) for i in range(0, len(data), step))
    assert (prelude.pid, got) == (4711, rest)


def test_prelude_gives_up() -> None:
    prelude = command.Prelude("n")
    with pytest.raises(ValueError, match="without end"):
        prelude.feed(b"x" * (prelude.LIMIT + 1))


def test_command_too_long_for_ssh() -> None:
    with pytest.raises(InputError) as caught:
        command.quoted(["echo", "x" * command.MAX_COMMAND], None, "n")
    assert caught.value.id == "E-ARGV"


@pytest.mark.parametrize(
    ("said", "id"),
    [
        ("cat: write error: No space left on device", "E-DISK-FULL"),
        ("sh: can't create x: Disk quota exceeded", "E-DISK-FULL"),
        ("noise\nmkdir: cannot create directory '/x': Permission denied\n", "E-REMOTE-PERMISSION"),
        ("Read-only file system", "E-REMOTE-PERMISSION"),
        ("sh: 1: cannot open /Permission denied: No such file", "E-REMOTE-MISSING"),
        ("sh: 1: cannot create No space left on device: Is a directory", "E-TRANSFER"),
        ("", "E-TRANSFER"),
    ],
)
def test_what_tools_say(said: str, id: str) -> None:
    error = failures.from_reason("pi-1", "/x", said)
    assert error.id == id
    assert "\n" not in str(error)


def test_bounded() -> None:
    assert bounded(lambda: 7, 5, list) == 7
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 // 0, 5, list)
    reader, writer = os.pipe()
    with pytest.raises(TimeoutError):
        bounded(lambda: os.read(reader, 1), 0.1, lambda: os.write(writer, b"x"))
    os.close(reader)
    os.close(writer)


SETTINGS: TypeAdapter[TransportSettings] = TypeAdapter(TransportSettings)


def test_settings() -> None:
    got = SETTINGS.validate_python({"type": "ssh", "host": "pi.local", "connect_timeout": 5})
    assert got == SshSettings(host="pi.local", connect_timeout=5.0)
    for plain in (
        {"type": "local"},
        {"type": "fake", "root": "/x", "faults": [{"kind": "drop", "on": "run"}]},
    ):
        assert SETTINGS.validate_json(SETTINGS.dump_json(SETTINGS.validate_python(plain)))


@pytest.mark.parametrize(
    "plain",
    [
        {"type": "telnet", "host": "x"},
        {"host": "x"},
        {"type": "ssh"},
        {"type": "ssh", "host": ""},
        {"type": "ssh", "host": "-oProxyCommand=id"},
        {"type": "ssh", "host": "a b"},
        {"type": "ssh", "host": "x", "user": "-l"},
        {"type": "ssh", "host": "x", "port": 0},
        {"type": "ssh", "host": "x", "port": "22"},
        {"type": "ssh", "host": "x", "keepalive": 0},
        {"type": "ssh", "host": "x", "pasword": "secret"},
        {"type": "local", "root": ""},
        {"type": "local", "root": "a\0b"},
        {"type": "fake", "root": "/x", "faults": [{"kind": "disk_full", "on": "read"}]},
        {"type": "fake", "root": "/x", "faults": [{"kind": "drop", "on": "run", "times": 0}]},
    ],
)
def test_settings_refused(plain: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SETTINGS.validate_python(plain)
