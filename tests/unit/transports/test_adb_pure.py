"""What adb says, and what the device is told: no server and no device."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from orchestrator.errors import InfraError, InputError
from orchestrator.transports import AdbSettings, adb_reach
from orchestrator.transports.adb_command import MAX_COMMAND, PUSHED, Trailer, quoted
from orchestrator.transports.adb_devices import (
    AdbDevice,
    choose,
    diagnose,
    is_network,
    parse_devices,
)
from orchestrator.transports.adb_server import AdbServer, not_started
from orchestrator.transports.command import Prelude
from orchestrator.transports.failures import last_words

LISTINGS = sorted((Path(__file__).parents[2] / "data" / "adb").glob("*.json"))


@pytest.mark.parametrize("path", LISTINGS, ids=lambda path: path.stem)
def test_a_listing_is_read_by_known_states_and_fields(path: Path) -> None:
    case = json.loads(path.read_text())
    assert parse_devices(case["text"]) == [AdbDevice(**device) for device in case["devices"]]


LISTED = """\
0123456789ABCDEF       device usb:1-2.3 product:panther model:Pixel_7 device:panther transport_id:4
127.0.0.1:5901         offline transport_id:12
emulator-5554          device product:sdk model:sdk_gphone device:emu64x transport_id:2
R58M12345              unauthorized usb:1-1 transport_id:5
(no serial number)     no permissions (user in plugdev group; are your udev rules wrong?); \
see [http://developer.android.com/tools/device.html] usb:3-1 transport_id:9

"""


def test_devices_as_the_server_lists_them() -> None:
    assert parse_devices(LISTED) == [
        AdbDevice("0123456789ABCDEF", "device", "usb:1-2.3", "panther", "Pixel_7", "panther", 4),
        AdbDevice("127.0.0.1:5901", "offline", transport_id=12),
        AdbDevice("emulator-5554", "device", None, "sdk", "sdk_gphone", "emu64x", 2),
        AdbDevice("R58M12345", "unauthorized", "usb:1-1", transport_id=5),
        AdbDevice(
            "(no serial number)",
            "no permissions",
            "usb:3-1",
            transport_id=9,
            remark="(user in plugdev group; are your udev rules wrong?); see"
            " [http://developer.android.com/tools/device.html]",
        ),
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "alone", "* daemon not running; starting it"])
def test_lines_that_are_no_device_do_no_harm(text: str) -> None:
    assert all(d.transport_id is None for d in parse_devices(text))


@given(st.text())
def test_whatever_a_server_says_is_read(text: str) -> None:
    assert all(d.serial and d.state for d in parse_devices(text))


@pytest.mark.parametrize(
    ("serial", "over"),
    [("10.0.0.7:5555", True), ("phone.lan:41231", True), ("[::1]:5555", True),
     ("R58M12345", False), ("emulator-5554", False), ("adb-1-x._adb-tls-connect._tcp", False)],
)  # fmt: skip
def test_what_is_reached_over_the_network(serial: str, over: bool) -> None:
    assert is_network(serial) is over


ONE = AdbDevice("S", "device", "usb:1-1", transport_id=1)
OTHER = AdbDevice("S", "device", "usb:1-2", transport_id=2)


def test_the_device_that_is_meant() -> None:
    assert choose([ONE], AdbSettings(serial="S"), "p") is ONE
    assert choose([ONE, OTHER], AdbSettings(serial="S", usb="usb:1-2"), "p") is OTHER


@pytest.mark.parametrize(
    ("devices", "usb", "id", "retryable"),
    [
        ([], None, "E-ADB-ABSENT", True),
        ([AdbDevice("T", "device")], None, "E-ADB-ABSENT", True),
        ([ONE, OTHER], None, "E-ADB-AMBIGUOUS", False),
        ([ONE, OTHER], "usb:7-7", "E-ADB-AMBIGUOUS", False),
        ([ONE], "usb:1-2", "E-ADB-IDENTITY", False),
        ([AdbDevice("S", "unauthorized", "usb:1-1")], None, "E-ADB-UNAUTHORIZED", False),
        ([AdbDevice("S", "offline", "usb:1-1")], "usb:1-1", "E-ADB-OFFLINE", True),
        ([AdbDevice("S", "connecting")], None, "E-ADB-OFFLINE", True),
        ([AdbDevice("S", "authorizing")], None, "E-ADB-OFFLINE", True),
        ([AdbDevice("S", "no permissions", remark="(x)")], None, "E-ADB-PERMISSION", False),
        ([AdbDevice("S", "recovery")], None, "E-ADB-STATE", False),
        ([AdbDevice("S", "sideload")], None, "E-ADB-STATE", False),
        ([AdbDevice("S", "bootloader")], None, "E-ADB-STATE", False),
        ([AdbDevice("S", "something new")], None, "E-ADB-STATE", False),
    ],
)
def test_each_state_has_its_own_diagnosis(
    devices: list[AdbDevice], usb: str | None, id: str, retryable: bool
) -> None:
    error = diagnose(devices, AdbSettings(serial="S", usb=usb), "phone-1")
    assert (error.id, error.retryable, bool(error.fix)) == (id, retryable, True)
    assert str(error).startswith("phone-1: ")


@pytest.mark.parametrize(
    ("devices", "id"),
    [
        ([ONE], None),
        ([ONE, OTHER], None),
        ([], "E-LINK"),
        (None, "E-LINK"),
        ([AdbDevice("S", "offline", "usb:1-1", transport_id=1)], "E-LINK"),
        ([AdbDevice("S", "unauthorized", "usb:1-1", transport_id=1)], "E-ADB-UNAUTHORIZED"),
        ([AdbDevice("S", "device", "usb:1-1", transport_id=8)], "E-LINK"),
        ([AdbDevice("S", "device", "usb:2-4", transport_id=8)], "E-ADB-IDENTITY"),
        # A server that was started anew counts from one again: number 1 is somebody else now.
        ([AdbDevice("T", "device", "usb:1-5", transport_id=1)], "E-LINK"),
    ],
)
def test_a_connection_is_lost_when_it_is_no_longer_the_same(
    devices: list[AdbDevice] | None, id: str | None
) -> None:
    error = adb_reach.lost(devices, ONE, "phone-1")
    assert (error and error.id) == id


NONCE = "0123456789abcdef"


@given(st.binary(max_size=60), st.binary(max_size=20), st.integers(0, 255), st.integers(1, 9))
def test_the_trailer_is_found_however_it_is_cut(
    before: bytes, after: bytes, status: int, step: int
) -> None:
    data = before + f"{NONCE}={status}\n".encode() + after
    trailer = Trailer(NONCE)
    got = b"".join(trailer.feed(data[i : i + step]) for i in range(0, len(data), step))
    assert (got + trailer.rest(), trailer.status) == (before + after, status)


@given(st.integers(0, 17), st.binary(max_size=9))
@example(17, b"\n")
@example(17, b"7")
@example(17, b"-1\n")
@example(17, b" 7\n")
@example(17, b"1_0\n")
@example(17, b"9999\n")
def test_what_only_begins_like_a_trailer_is_passed_on(length: int, more: bytes) -> None:
    data = (f"{NONCE}=".encode())[:length] + more
    assume(not re.search(rf"{NONCE}=[0-9]{{1,3}}\n".encode(), data))
    trailer = Trailer(NONCE)
    assert trailer.feed(data) + trailer.rest() == data
    assert trailer.status is None


def test_a_line_that_is_no_trailer_hides_none_behind_it() -> None:
    trailer = Trailer(NONCE)
    said = f"{NONCE}=\n{NONCE}=x\n{NONCE}=7\n".encode()
    got = b"".join(trailer.feed(said[i : i + 1]) for i in range(len(said)))
    assert (got + trailer.rest(), trailer.status) == (f"{NONCE}=\n{NONCE}=x\n".encode(), 7)


def test_stderr_is_not_held_back_for_a_trailer() -> None:
    assert Trailer(NONCE).feed(b"the end\n") == b"the end\n"


@pytest.mark.parametrize(
    ("argv", "status"),
    [(["sh", "-c", "exit 7"], 7), (["sh", "-c", "kill -9 $$"], 137), (["assay-no-such"], 127),
     (["--help"], 127), (["true"], 0)],
)  # fmt: skip
def test_the_wrapper_tells_the_status(argv: list[str], status: int) -> None:
    line = quoted(argv, {"A": "it's $B"}, NONCE)
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=False)
    prelude, trailer = Prelude(NONCE), Trailer(NONCE)
    prelude.feed(done.stdout)
    trailer.feed(done.stderr)
    assert prelude.pid is not None
    assert trailer.status == status


def test_a_command_too_long_for_the_server() -> None:
    with pytest.raises(InputError) as caught:
        quoted(["echo", "x" * MAX_COMMAND], None, NONCE)
    assert caught.value.id == "E-ARGV"


SHA_OF_FOUR = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # "test"


def pushed(folder: Path, size: int, sha256: str, free: int = 10_000) -> tuple[int, str]:
    """Status and stderr of the check after a push, on a device with ``free`` KiB left."""
    shims = folder / "shims"
    shims.mkdir()
    (shims / "df").write_text(f"#!/bin/sh\necho Filesystem x\necho /dev/x 100 90 {free} 9% /\n")
    (shims / "df").chmod(0o755)
    names = [str(folder / name) for name in (".part", "final")]
    done = subprocess.run(
        ["sh", "-c", PUSHED, "sh", *names, str(size), sha256, str(folder)],
        env={**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not (folder / ".part").exists()
    return done.returncode, done.stderr.strip()


def test_a_push_that_is_whole_takes_its_name(tmp_path: Path) -> None:
    (tmp_path / ".part").write_text("test")
    assert pushed(tmp_path, 4, SHA_OF_FOUR) == (0, "")
    assert (tmp_path / "final").read_text() == "test"


@pytest.mark.parametrize(
    ("size", "sha256", "free", "says"),
    [
        (9, SHA_OF_FOUR, 10_000, "4 of 9 bytes"),
        (9, SHA_OF_FOUR, 12, "No space left on device"),
        (4, "0" * 64, 10_000, "another sha256"),
    ],
)
def test_a_push_that_adb_called_good_and_is_not(
    tmp_path: Path, size: int, sha256: str, free: int, says: str
) -> None:
    (tmp_path / ".part").write_text("test")
    status, said = pushed(tmp_path, size, sha256, free)
    assert status == 13
    assert says in said
    assert not (tmp_path / "final").exists()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("* daemon not running; starting now at tcp:5137\nADB server didn't ACK\n"
         "Full server startup log: /tmp/adb.0.log\nServer had pid: 7\n"
         "--- adb starting (pid 7) ---\n"
         "could not install *smartsocket* listener: Address already in use\n\n",
         "could not install *smartsocket* listener: Address already in use"),
        ("* daemon not running; starting now\n* failed to start daemon\n",
         "* failed to start daemon"),
        ("error: cannot open /root/.android: Permission denied\nbye\n",
         "error: cannot open /root/.android: Permission denied"),
        ("Segmentation fault\n", "Segmentation fault"),
        ("", "it does not say why"),
    ],
)  # fmt: skip
def test_why_a_server_does_not_start_is_looked_up_in_all_that_it_says(said: str, why: str) -> None:
    assert last_words(said) == why


@pytest.mark.parametrize(
    ("error", "id", "retryable"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "E-ADB-MISSING", False),
        (OSError(errno.ENOEXEC, "Exec format error"), "E-ADB-MISSING", False),
        (ValueError("embedded null byte"), "E-ADB-MISSING", False),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "E-HUB-IO", True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "E-HUB-IO", True),
        (OSError(errno.EMFILE, "Too many open files"), "E-HUB-IO", True),
        (OSError(errno.ENOSPC, "No space left on device"), "E-HUB-IO", True),
    ],
)
def test_a_client_that_does_not_start_is_missing_or_this_machine_is_short_of_something(
    error: OSError | ValueError, id: str, retryable: bool
) -> None:
    found = not_started("adb", error)
    assert (found.id, found.retryable) == (id, retryable)
    assert (getattr(error, "strerror", None) or str(error)) in found.what


def test_a_server_that_answers_with_other_than_its_protocol_is_named_and_ends_nothing() -> None:
    said = [b"OKAY-001", b"OKAY 1_0", b"OKAYzzzz", b"\xff\xfe\x00\x01", b"OKAY", b"FAIL", b"FAIL00"]
    said += [b"OKAY0008abc", b"HTTP/1.1 400 Bad Request\r\n\r\n"]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = AdbServer(port=listening.getsockname()[1])

        def answer() -> None:
            for words in [each for each in said for _ in range(2)]:
                link, _ = listening.accept()
                with link:
                    link.recv(64)
                    link.sendall(words)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        for words in said:
            for ask in (server.version, server.devices):
                with pytest.raises(InfraError) as caught:
                    ask()
                assert caught.value.id in ("E-ADB-SERVER", "E-LINK"), words
        thread.join(10)
