"""The emulated phone behind its real adbd: cable pulled, adbd gone, storage full."""

from __future__ import annotations

import contextlib
import functools
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from infra.virtual_farm import farm
from infra.virtual_farm.config import load_definitions
from orchestrator.errors import AssayError
from orchestrator.transports import AdbSettings, Transport, open_transport
from orchestrator.transports.adb import KILL_TIMEOUT
from tests.support import adbd

pytestmark = pytest.mark.phone

PATIENCE = 60.0
PASSING = ("E-ADB-CONNECT", "E-ADB-OFFLINE", "E-ADB-ABSENT", "E-LINK")
"""What entering may say while a phone is coming back."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbSettings]:
    """With a server of this module's own: what happens to the phone is nobody else's."""
    phone = load_definitions().boards["qemu-phone"]
    with adbd.server(tmp_path_factory.mktemp("server")) as port:
        yield AdbSettings(
            serial=f"{phone.address}:{phone.port}",
            server_port=port,
            root="/data/local/tmp/assay-test",
            connect_timeout=PATIENCE,
        )


@pytest.fixture(autouse=True)
def left_as_it_was(settings: AdbSettings) -> Iterator[None]:
    yield
    drive("cable=auto", "adbd=auto")
    with reopened(settings) as phone:
        phone.run(["rm", "-rf", settings.root], timeout=PATIENCE)


def drive(*settings: str) -> None:
    assert farm.main(["set", "qemu-phone", *settings]) == 0


@contextlib.contextmanager
def reopened(settings: AdbSettings) -> Iterator[Transport]:
    """A new connection, as soon as there is one."""
    end = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            try:
                phone = stack.enter_context(open_transport(settings, device="qemu-phone"))
                break
            except AssayError as error:
                if error.id not in PASSING or time.monotonic() > end:
                    raise
            time.sleep(0.2)
        yield phone


def failure(call: Callable[[], object]) -> tuple[str, float]:
    start = time.monotonic()
    with pytest.raises(AssayError) as caught:
        call()
    return caught.value.id, time.monotonic() - start


def test_a_pulled_cable_is_silence_and_then_a_link_that_is_down(settings: AdbSettings) -> None:
    with open_transport(settings, device="qemu-phone") as phone:
        channel = phone.start(["cat"])
        channel.send(b"x")
        assert channel.read_line(PATIENCE) == b"x"
        drive("cable=0")
        id, _ = failure(lambda: channel.read_line(1.0))
        assert id in ("E-SILENCE", "E-LINK")
        id, took = failure(lambda: phone.run(["true"], timeout=1.0))
        assert id in ("E-DEADLINE", "E-LINK")
        assert took < 1.0 + KILL_TIMEOUT + 5.0
        start = time.monotonic()
        channel.close(0.2)
        assert time.monotonic() - start < KILL_TIMEOUT + 5.0
    drive("cable=auto")
    with reopened(settings) as phone:
        assert phone.run(["uname", "-m"], timeout=PATIENCE).stdout == b"aarch64\n"


def test_a_killed_adbd_is_a_link_that_is_down(settings: AdbSettings) -> None:
    with open_transport(settings, device="qemu-phone") as phone:
        channel = phone.start(["cat"])
        drive("adbd=0")
        assert failure(lambda: channel.read_line(PATIENCE))[0] == "E-LINK"
        assert failure(lambda: phone.ping(timeout=PATIENCE))[0] == "E-LINK"
    drive("adbd=auto")
    with reopened(settings) as phone:
        assert phone.ping(timeout=PATIENCE) > 0


def test_a_full_storage_is_called_that(settings: AdbSettings, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(secrets.token_bytes(4 << 20))
    fill = 'free=$(df -Pk "$1" | { read h; read a b c free d; echo $free; }); '
    fill += 'fallocate -l $(( (free - 1024) * 1024 )) "$1/filling"'
    with open_transport(settings, device="qemu-phone") as phone:
        root = str(phone.root())
        done = phone.run(["sh", "-c", fill, "sh", root], timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        id, _ = failure(lambda: phone.push(big, PurePosixPath("a/big"), timeout=PATIENCE))
        assert id == "E-DISK-FULL"
        assert phone.run(["ls", "-A", f"{root}/a"], timeout=PATIENCE).stdout == b""
        phone.run(["rm", f"{root}/filling"], timeout=PATIENCE)
        phone.push(big, PurePosixPath("a/big"), timeout=PATIENCE)


def test_a_folder_that_is_refused(settings: AdbSettings, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"x")
    with open_transport(settings, device="qemu-phone") as phone:
        for target in ("/system/x", "/system/new/x"):
            push = functools.partial(phone.push, small, PurePosixPath(target), timeout=PATIENCE)
            id, _ = failure(push)
            assert id == "E-REMOTE-PERMISSION"
