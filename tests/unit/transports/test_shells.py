"""Login shells of devices: our words reach the program through each, theirs do not reach us."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import InfraError
from orchestrator.transports import Transport, command, open_transport
from orchestrator.transports.contract import Check, calls, run_check
from orchestrator.transports.contract.kit import NASTY
from tests.support import sshd

SHELLS = [
    pytest.param(words, id=words[0], marks=pytest.mark.skipif(
        shutil.which(words[0]) is None, reason=f"no {words[0]} here"))
    for words in (
        ["sh"], ["bash"], ["dash"], ["busybox", "ash"], ["mksh"], ["ksh"], ["zsh", "-f"],
        ["fish", "--no-config"], ["tcsh", "-f"], ["bsd-csh", "-f"], ["yash"],
    )
]  # fmt: skip
"""Without what the user of this machine has set up for them."""

FOREIGN = [p for p in SHELLS if p.id in ("bash", "busybox", "fish", "tcsh", "zsh")]

WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))


@pytest.mark.parametrize("shell", SHELLS)
def test_every_word_survives(shell: Sequence[str]) -> None:
    words = [*NASTY, "a\\", "\\\\", "!!", "a!b", "a\nb\n", "~", "{a,b}", "=x", "^a^b", "x" * 5000]
    words += [" " * 3000, "é\u202e", "%s%n", "*", "-n", "\x7f\x1b[2J", "'\"'\"'", "$x`x`"]
    line = command.quoted(["printf", "%s\\0", *words], {"X": "it's\n!\\"}, "nonce")
    assert "\n" not in line
    assert "!" not in line
    done = subprocess.run([*shell, "-c", line], capture_output=True, check=True, timeout=60)
    prelude, apart = command.Prelude("nonce"), command.Prelude("nonce", stderr=True)
    assert prelude.feed(done.stdout).decode().split("\0")[:-1] == words
    assert apart.feed(done.stderr) == b""
    assert prelude.pid == apart.pid is not None
    line = command.quoted(["sh", "-c", 'printf %s "$X"'], {"X": "it's\n!\\"}, "nonce")
    done = subprocess.run([*shell, "-c", line], capture_output=True, check=True, timeout=60)
    assert command.Prelude("nonce").feed(done.stdout) == b"it's\n!\\"


@settings(max_examples=20)
@given(WORDS)
def test_words_are_encoded_without_a_character_that_a_shell_reads(words: list[str]) -> None:
    encoded = command.encoded(" ".join(words))
    assert set(encoded) <= set(command.SAFE + "_ ")
    assert all(len(word) <= 1000 for word in encoded.split())


def test_variables_of_the_wrapper_are_not_those_of_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of that name may be in the environment that sshd hands on."""
    monkeypatch.setenv("b", "mine")
    line = command.quoted(["sh", "-c", 'printf "%s|%s" "$b" "$IFS"'], None, "n")
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    assert command.Prelude("n").feed(done.stdout) == b"mine| \t\n"


def through(folder: Path, shell: str, *, noise: str = "") -> Iterator[Transport]:
    """A device whose commands ``shell`` reads, as if it was the login shell."""
    script = folder / "login"
    script.write_text(f'#!/bin/sh\n{noise}\nexec {shell} -c "$SSH_ORIGINAL_COMMAND"\n')
    script.chmod(0o755)
    with (
        sshd.running(folder / "sshd", f"ForceCommand {script}") as server,
        open_transport(server.settings(), device="unit") as opened,
    ):
        yield opened


@pytest.fixture(scope="module", params=FOREIGN)
def device(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Transport]:
    if sshd.MISSING:
        pytest.skip(sshd.MISSING)
    noise = 'echo "hello from .bashrc"; echo "warning: setlocale" >&2; printf "no newline" >&2'
    yield from through(tmp_path_factory.mktemp("device"), " ".join(request.param), noise=noise)


CHECKS = [
    calls.every_word_arrives_as_it_is,
    calls.stdout_and_stderr_are_apart,
    calls.environment_arrives,
    calls.death_by_signal_is_128_plus_signal,
]


def test_a_device_with_a_chatty_login_of_that_shell(device: Transport) -> None:
    for check in CHECKS:
        run_check(Check(check.__name__, check), device)


def test_a_channel_has_only_what_the_program_says(device: Transport) -> None:
    with closing(device.start(["sh", "-c", "echo out; echo err >&2"])) as channel:
        assert channel.read_line(60) == b"out"
        assert channel.read_line(60) is None
        assert channel.stderr_tail() == "err\n"


@pytest.mark.skipif(bool(sshd.MISSING), reason=sshd.MISSING or "")
@pytest.mark.parametrize(
    ("login", "says"),
    [
        ("echo \"Unmatched '''.\" >&2; exit 1", "Unmatched '''."),
        ("echo This account is currently not available.; exit 1", "currently not available."),
        (r"printf '\033]0;x\007denied\n' >&2; exit 1", r"\x1b]0;x\x07denied"),
        ("echo expired >&2; echo 'change it'; exit 1", "change it / expired"),
        ("yes locked | head -c 3000 >&2; exit 1", "locked / locked"),
        ("exit 1", "it printed nothing"),
        ("yes | head -c 100000; exec sleep 600", "without end: "),
        ("yes | head -c 100000 >&2; exec sleep 600", "without end: "),
    ],
)
def test_a_shell_that_runs_nothing_is_refused_with_what_it_said(
    tmp_path: Path, login: str, says: str
) -> None:
    script = tmp_path / "login"
    script.write_text(f"#!/bin/sh\n{login}\n")
    script.chmod(0o755)
    with (
        sshd.running(tmp_path / "sshd", f"ForceCommand {script}") as server,
        open_transport(server.settings(), device="unit") as opened,
        pytest.raises(InfraError) as caught,
    ):
        opened.run(["true"], timeout=60)
    assert caught.value.id == "E-REMOTE-SHELL"
    assert not caught.value.retryable
    assert says in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
