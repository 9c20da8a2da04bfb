"""``run``, ``ping`` and ``root``: what every transport must do."""

from __future__ import annotations

import os
import secrets
import threading
import time
from pathlib import PurePosixPath

from orchestrator.errors import DeadlineError, InputError
from orchestrator.transports.base import Transport
from orchestrator.transports.contract.kit import (
    NASTY,
    PATIENCE,
    checks,
    ensure,
    expect,
    expect_stopped,
    raises,
    round_trip,
    sh,
    ticker,
)


def status_is_returned(t: Transport, scratch: PurePosixPath) -> None:
    expect("status", [sh(t, f"exit {n}").returncode for n in (0, 1, 77, 255)], [0, 1, 77, 255])


def death_by_signal_is_128_plus_signal(t: Transport, scratch: PurePosixPath) -> None:
    expect("status after SIGKILL", sh(t, "kill -9 $$").returncode, 137)
    expect("status after SIGTERM", sh(t, "kill -15 $$").returncode, 143)


def missing_program_is_127(t: Transport, scratch: PurePosixPath) -> None:
    for name in ("assay-no-such-program", "/no/such/program", "--no-such-option"):
        done = t.run([name], timeout=PATIENCE)
        expect(f"status of {name}", done.returncode, 127)
        ensure(b"not found" in done.stderr.lower() or b"no such" in done.stderr.lower(),
              f"stderr does not say that {name} is missing: {done.stderr!r}")  # fmt: skip


def impossible_arguments_are_refused(t: Transport, scratch: PurePosixPath) -> None:
    for argv in ([], [""], ["printf", "a\0b"]):
        with raises(InputError, "E-ARGV"):
            t.run(argv, timeout=PATIENCE)
    for env in ({"a b": "c"}, {"": "x"}, {"A;id": "x"}, {"A\n": "x"}, {"A": "x\0"}):
        with raises(InputError, "E-ARGV"):
            t.run(["true"], timeout=PATIENCE, env=env)


def stdout_and_stderr_are_apart(t: Transport, scratch: PurePosixPath) -> None:
    done = sh(t, "echo out; echo err >&2; echo out2; echo err2 >&2")
    expect("streams", (done.stdout, done.stderr), (b"out\nout2\n", b"err\nerr2\n"))


def stdin_round_trip(t: Transport, scratch: PurePosixPath) -> None:
    for data in (b"", b"\0", bytes(range(256)), b"no newline", secrets.token_bytes(1 << 20)):
        done = t.run(["cat"], timeout=PATIENCE, stdin=data)
        expect(f"{len(data)} bytes through cat", done.stdout == data, True)


def unread_stdin_does_no_harm(t: Transport, scratch: PurePosixPath) -> None:
    expect("status", t.run(["true"], timeout=PATIENCE, stdin=bytes(8 << 20)).returncode, 0)


def both_streams_full_at_once(t: Transport, scratch: PurePosixPath) -> None:
    size = 4 << 20
    script = f"head -c {size} /dev/zero >&2 & head -c {size} /dev/zero; wait"
    done = sh(t, script)
    expect("lengths", (len(done.stdout), len(done.stderr)), (size, size))


def every_word_arrives_as_it_is(t: Transport, scratch: PurePosixPath) -> None:
    done = t.run(["printf", "%s\\0", *NASTY], timeout=PATIENCE)
    expect("words", done.stdout.decode().split("\0")[:-1], list(NASTY))
    done = sh(t, 'for word; do printf "%s\\0" "$word"; done', *NASTY)
    expect("words for sh", done.stdout.decode().split("\0")[:-1], list(NASTY))


def environment_arrives(t: Transport, scratch: PurePosixPath) -> None:
    env = {f"_X{i}": word for i, word in enumerate(NASTY)}
    names = " ".join(f'"${name}"' for name in env)
    done = t.run(["sh", "-c", f'printf "%s\\0" {names}'], timeout=PATIENCE, env=env)
    expect("variables", done.stdout.decode().split("\0")[:-1], list(NASTY))


def own_environment_does_not_leak(t: Transport, scratch: PurePosixPath) -> None:
    name = f"ASSAY_CONTRACT_{secrets.token_hex(8)}"
    os.environ[name] = "x"
    try:
        done = t.run(["env"], timeout=PATIENCE)
    finally:
        del os.environ[name]
    expect("leaked variables", name.encode() in done.stdout, False)


def deadline_kills_the_group(t: Transport, scratch: PurePosixPath) -> None:
    with raises(DeadlineError, "E-DEADLINE", within=10.0):
        t.run(ticker(scratch), timeout=2.0)
    expect_stopped(t, scratch)


def two_threads_at_once(t: Transport, scratch: PurePosixPath) -> None:
    wrong: list[object] = []

    def work(name: str) -> None:
        try:
            for n in range(5):
                word = f"{name}-{n}"
                got = t.run(["cat"], timeout=PATIENCE, stdin=word.encode() * 1000).stdout
                if got != word.encode() * 1000:
                    wrong.append(word)
                round_trip(t, scratch / name, 1000 + n)
        except Exception as error:  # noqa: BLE001 - handed to the checking thread
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect("failures", wrong, [])


def ping_returns_the_round_trip(t: Transport, scratch: PurePosixPath) -> None:
    start = time.monotonic()
    ensure(0 < t.ping(timeout=PATIENCE) <= time.monotonic() - start, "impossible round trip")


def root_is_absolute_and_exists(t: Transport, scratch: PurePosixPath) -> None:
    ensure(t.root().is_absolute(), f"{t.root()} is not absolute")
    expect("status of test -d", t.run(["test", "-d", str(t.root())], timeout=9).returncode, 0)


CHECKS = checks(
    status_is_returned,
    death_by_signal_is_128_plus_signal,
    missing_program_is_127,
    impossible_arguments_are_refused,
    stdout_and_stderr_are_apart,
    stdin_round_trip,
    unread_stdin_does_no_harm,
    both_streams_full_at_once,
    every_word_arrives_as_it_is,
    environment_arrives,
    own_environment_does_not_leak,
    deadline_kills_the_group,
    two_threads_at_once,
    ping_returns_the_round_trip,
    root_is_absolute_and_exists,
)
