"""``start`` and its channel: what every transport must do."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import PurePosixPath

from orchestrator.errors import AssayError, DeadlineError, InfraError
from orchestrator.transports.base import MAX_LINE, Transport
from orchestrator.transports.contract.kit import (
    PATIENCE,
    checks,
    ensure,
    expect,
    expect_stopped,
    line_of,
    names_in,
    raises,
    ticker,
)
from orchestrator.transports.lines import TAIL


def channel_echoes_lines(t: Transport, scratch: PurePosixPath) -> None:
    with closing(t.start(["cat"])) as channel:
        for n in range(1000):
            line = b"%d " % n + bytes(range(11, 256))
            channel.send(line)
            expect(f"line {n}", line_of(channel), line)
        expect("status of a running process", channel.returncode(), None)
    expect("status after close", channel.returncode(), 0)


def channel_gets_words_and_environment(t: Transport, scratch: PurePosixPath) -> None:
    argv = ["sh", "-c", 'printf "%s\\n" "$X" "$@"', "sh", "a b", "$(id)"]
    with closing(t.start(argv, env={"X": "it's"})) as channel:
        lines = [line_of(channel) for _ in range(4)]
    expect("lines", lines, [b"it's", b"a b", b"$(id)", None])


def channel_end_of_stream(t: Transport, scratch: PurePosixPath) -> None:
    with closing(t.start(["sh", "-c", "printf 'a\\n\\nrest'; exit 7"])) as channel:
        lines = [line_of(channel) for _ in range(5)]
        expect("lines, the last without newline", lines, [b"a", b"", b"rest", None, None])
        end = time.monotonic() + PATIENCE
        while channel.returncode() is None and time.monotonic() < end:
            time.sleep(0.01)
        expect("status", channel.returncode(), 7)


def channel_of_a_missing_program(t: Transport, scratch: PurePosixPath) -> None:
    with closing(t.start(["assay-no-such-program"])) as channel:
        expect("line", line_of(channel), None)
    expect("status", channel.returncode(), 127)
    ensure("not found" in channel.stderr_tail(), f"stderr: {channel.stderr_tail()!r}")


def channel_send_after_the_end(t: Transport, scratch: PurePosixPath) -> None:
    with closing(t.start(["true"])) as channel:
        expect("line", line_of(channel), None)
        with raises(InfraError, "E-LINK"):
            for _ in range(100):
                channel.send(b"anyone?")
                time.sleep(0.01)


def channel_silence(t: Transport, scratch: PurePosixPath) -> None:
    script = "printf partial; read x; echo; read x; echo later"
    with closing(t.start(["sh", "-c", script])) as channel:
        with raises(DeadlineError, "E-SILENCE", within=3.0):
            channel.read_line(0.5)
        channel.send(b"go")
        expect("the line after a silence", line_of(channel), b"partial")
        with raises(DeadlineError, "E-SILENCE", within=3.0):
            channel.read_line(0.0)
        channel.send(b"go")
        expect("line", line_of(channel), b"later")


def channel_longest_line(t: Transport, scratch: PurePosixPath) -> None:
    script = f"head -c {MAX_LINE} /dev/zero; echo; echo next"
    with closing(t.start(["sh", "-c", script])) as channel:
        expect("length", len(line_of(channel) or b""), MAX_LINE)
        expect("line", line_of(channel), b"next")


def channel_line_too_long(t: Transport, scratch: PurePosixPath) -> None:
    script = f"head -c {MAX_LINE + 1} /dev/zero; echo; echo next"
    with closing(t.start(["sh", "-c", script])) as channel:
        for _ in range(2):
            with raises(InfraError, "E-WORKER-GARBAGE"):
                line_of(channel)
    with closing(t.start(["cat", "/dev/zero"])) as channel:
        with raises(InfraError, "E-WORKER-GARBAGE"):
            line_of(channel)
        channel.close(0.0)


def channel_stderr_tail_is_bounded(t: Transport, scratch: PurePosixPath) -> None:
    size = 8 << 20
    script = f"head -c {size} /dev/zero >&2; echo the end >&2; echo done; read x"
    with closing(t.start(["sh", "-c", script])) as channel:
        expect("line after much stderr", line_of(channel), b"done")
        end = time.monotonic() + PATIENCE
        while not channel.stderr_tail().endswith("the end\n") and time.monotonic() < end:
            time.sleep(0.01)
        tail = channel.stderr_tail()
    ensure(tail.endswith("the end\n"), f"the tail is not the end of stderr: {tail[-40:]!r}")
    expect("length of the tail", len(tail), TAIL)


def channel_close_ends_stdin_first(t: Transport, scratch: PurePosixPath) -> None:
    script = 'mkdir -p "$1"; echo up; cat > /dev/null; echo bye > "$1/clean"; exit 3'
    with closing(t.start(["sh", "-c", script, "sh", str(scratch)])) as channel:
        expect("line", line_of(channel), b"up")
    expect("status", channel.returncode(), 3)
    expect("names", names_in(t, scratch), ["clean"])


def channel_close_kills_the_group(t: Transport, scratch: PurePosixPath) -> None:
    with closing(t.start(ticker(scratch))) as channel:
        expect("line", line_of(channel), b"up")
        time.sleep(0.5)
        start = time.monotonic()
        channel.close(0.2)
        channel.close(0.2)
        ensure(time.monotonic() - start < 10, "close took over 10 s")
        expect("status", channel.returncode(), 137)
        expect_stopped(t, scratch)


def several_channels_at_once(t: Transport, scratch: PurePosixPath) -> None:
    channels = [t.start(["cat"]) for _ in range(4)]
    for n in range(20):
        for i, channel in enumerate(channels):
            channel.send(b"%d/%d" % (i, n))
    for n in range(20):
        for i, channel in enumerate(channels):
            expect("line", line_of(channel), b"%d/%d" % (i, n))
    expect("run beside channels", t.run(["echo", "x"], timeout=PATIENCE).stdout, b"x\n")
    for channel in channels:
        channel.close()


def one_thread_sends_another_reads(t: Transport, scratch: PurePosixPath) -> None:
    count = 2000
    failed: list[AssayError] = []
    with closing(t.start(["cat"])) as channel:

        def work() -> None:
            try:
                for n in range(count):
                    channel.send(b"%d" % n * 50)
            except AssayError as error:
                failed.append(error)

        sender = threading.Thread(target=work)
        sender.start()
        for n in range(count):
            expect("line", line_of(channel), b"%d" % n * 50)
        sender.join()
    expect("failures to send", failed, [])


CHECKS = checks(
    channel_echoes_lines,
    channel_gets_words_and_environment,
    channel_end_of_stream,
    channel_of_a_missing_program,
    channel_send_after_the_end,
    channel_silence,
    channel_longest_line,
    channel_line_too_long,
    channel_stderr_tail_is_bounded,
    channel_close_ends_stdin_first,
    channel_close_kills_the_group,
    several_channels_at_once,
    one_thread_sends_another_reads,
)
