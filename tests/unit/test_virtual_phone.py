"""The cable to the emulated phone and the little adb that asks it, without starting a phone."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from infra.virtual_farm import adbclient, kernel, relay
from infra.virtual_farm.config import FarmError, load_definitions

PHONE = load_definitions().boards["qemu-phone"]
PATIENCE_S = 20.0
Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(serve: Serve) -> Iterator[tuple[str, int]]:
    """Answer every connection with ``serve``, each in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def one(link: socket.socket) -> None:
        with link, contextlib.suppress(OSError, FarmError):
            link.settimeout(PATIENCE_S)
            serve(link)

    def loop() -> None:
        while not stopped.is_set():
            link = listener.accept()[0]
            threading.Thread(target=one, args=(link,), daemon=True).start()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    address = listener.getsockname()
    try:
        yield address
    finally:
        stopped.set()
        socket.create_connection(address).close()
        thread.join(PATIENCE_S)
        listener.close()


class Cable:
    """A relay in a thread, whose cable the test pulls."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.plugged = True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.relay = relay.Relay(self.listener, target, lambda: self.plugged)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.stopped.is_set():
            self.relay.step()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, PATIENCE_S)

    def pull(self) -> None:
        self.plugged = False
        time.sleep(3 * relay.POLL_S)  # the step that was under way

    def close(self) -> None:
        self.stopped.set()
        self.thread.join(PATIENCE_S)
        for end in list(self.relay._ends):
            end.link.close()
        self.listener.close()


@contextlib.contextmanager
def cable(target: tuple[str, int]) -> Iterator[Cable]:
    made = Cable(target)
    try:
        yield made
    finally:
        made.close()


def echo(link: socket.socket) -> None:
    while data := link.recv(65536):
        link.sendall(data)
    link.shutdown(socket.SHUT_WR)


def read_all(link: socket.socket) -> bytes:
    said = b""
    while data := link.recv(65536):
        said += data
    return said


def test_bytes_pass_both_ways_and_so_does_the_end() -> None:
    data = os.urandom(3_000_000)
    with server(echo) as target, cable(target) as wire, wire.connect() as link:

        def send() -> None:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert read_all(link) == data
        sender.join(PATIENCE_S)
        # Whole connections are forgotten.
        deadline = time.monotonic() + PATIENCE_S
        while wire.relay._ends and time.monotonic() < deadline:
            time.sleep(0.01)
        assert wire.relay._ends == []


def test_a_pulled_cable_is_silence_and_plugged_in_again_everything_arrives() -> None:
    with server(echo) as target, cable(target) as wire, wire.connect() as link:
        link.sendall(b"one")
        assert link.recv(3) == b"one"
        wire.pull()
        link.sendall(b"two")
        with wire.connect() as newcomer:
            newcomer.sendall(b"hello")
            for waiting in (link, newcomer):
                waiting.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    waiting.recv(1)
                waiting.settimeout(PATIENCE_S)
            wire.plugged = True
            assert link.recv(3) == b"two"
            assert newcomer.recv(5) == b"hello"


def test_where_nobody_listens_a_connection_ends_and_the_next_one_is_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nowhere = free.getsockname()
    with cable(nowhere) as wire:
        for _ in range(2):
            with wire.connect() as link:
                assert link.recv(1) == b""


def test_one_who_does_not_read_holds_up_nobody_else() -> None:
    with server(echo) as target, cable(target) as wire, wire.connect() as stuck:
        stuck.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(2000):
                stuck.send(bytes(65536))
        with wire.connect() as link:
            link.sendall(b"still here")
            assert link.recv(10) == b"still here"
        # It is held back, not collected without end.
        assert all(len(end.waiting) <= 2 * relay.CHUNK for end in wire.relay._ends)


# --- adb


def answer(*messages: tuple[bytes, int, int, bytes]) -> Serve:
    def serve(link: socket.socket) -> None:
        adbclient.receive(link)
        for kind, first, second, data in messages:
            adbclient.send(link, kind, first, second, data)
        link.recv(1)

    return serve


def test_a_shell_command_is_asked_and_its_output_collected() -> None:
    asked: list[bytes] = []

    def serve(link: socket.socket) -> None:
        assert adbclient.receive(link)[0] == adbclient.CNXN
        adbclient.send(link, adbclient.CNXN, adbclient.VERSION, 4096, b"device::")
        _, identifier, data = adbclient.receive(link)
        asked.append(data)
        adbclient.send(link, adbclient.OKAY, 7, identifier)
        for part in (b"aar", b"ch64\r\n"):
            adbclient.send(link, adbclient.WRTE, 7, identifier, part)
            assert adbclient.receive(link)[:2] == (adbclient.OKAY, adbclient.LOCAL_ID)
        adbclient.send(link, adbclient.CLSE, 7, identifier)

    with server(serve) as (host, port):
        assert adbclient.shell(host, port, "uname -m", PATIENCE_S) == "aarch64\n"
    assert asked == [b"shell:uname -m\0"]


@pytest.mark.parametrize(
    ("serve", "complaint"),
    [
        (answer((adbclient.AUTH, 1, 0, bytes(20))), "wants a key"),
        (lambda link: link.sendall(b"SSH-2.0-something else altogether\r\n"), "speak adb"),
        (lambda link: None, "hung up|reset"),
    ],
)
def test_what_is_no_phone_does_not_answer(serve: Serve, complaint: str) -> None:
    with server(serve) as (host, port), pytest.raises((FarmError, OSError), match=complaint):
        adbclient.greet(host, port, PATIENCE_S)


# --- what keeps adbd in


def test_a_process_without_vsock_has_all_other_sockets() -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            kernel.forbid_vsock()
            socket.socket().close()
            try:
                socket.socket(getattr(socket, "AF_VSOCK", kernel.AF_VSOCK))
            except OSError as error:
                code = 0 if error.errno == kernel.EAFNOSUPPORT else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
