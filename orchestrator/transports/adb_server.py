"""The adb server on a port of its own: started if need be, asked over its socket, never killed.

A client that finds a server of another version on its port kills it, and with it every running
shell of every lease. So the version is asked first, over the socket, where asking is harmless.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import DeadlineError, InfraError
from orchestrator.transports.adb_devices import AdbDevice, parse_devices
from orchestrator.transports.failures import last_words

USUAL_PORT = 5037
"""Where everybody's adb server is, unless told otherwise."""

ASKING = 5.0
"""Seconds for a question that the server answers out of its own memory."""

START_TIMEOUT = 20.0

_LENGTH = 4
_HEX = re.compile(rb"[0-9A-Fa-f]{4}")
_OWN_ENV = {
    "ADB_SERVER_SOCKET", "ADB_TRACE", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT",
    "ANDROID_LOG_TAGS", "ANDROID_SERIAL",
}  # fmt: skip
"""Variables of the user's shell that would send the client elsewhere or make it talk."""

_MOST = 1 << 16
"""Bytes of what a client says that are looked at."""

_VERSION = re.compile(r"Android Debug Bridge version \d+\.\d+\.(\d+)")


class Refused(Exception):  # noqa: N818 - an answer, and often the expected one
    """The server answered FAIL; the text says why."""


def environment() -> dict[str, str]:
    """What the client gets: HOME and ADB_VENDOR_KEYS stay, so the user's own key is offered."""
    return {k: v for k, v in os.environ.items() if k not in _OWN_ENV}


def receive(link: socket.socket, count: int) -> bytes:
    """Exactly ``count`` bytes. EOFError, OSError."""
    data = b""
    while len(data) < count:
        more = link.recv(count - len(data))
        if not more:
            raise EOFError("the adb server closed the connection")
        data += more
    return data


def receive_block(link: socket.socket) -> str:
    """Receive a text with its length in four hexadecimal digits before it.

    Raises EOFError, OSError, ValueError.
    """
    head = receive(link, _LENGTH)
    if not _HEX.fullmatch(head):  # int() would take "-001", " 1_0" and the like
        raise ValueError(f"it answered {head!r}")
    return receive(link, int(head, 16)).decode("utf-8", "replace")


def open_service(port: int, service: str, timeout: float) -> socket.socket:
    """A connection on which the server said OKAY to ``service``.

    Raises Refused, OSError (nobody listens, timeout), EOFError, ValueError (no adb server).
    """
    link = socket.create_connection(("127.0.0.1", port), timeout)
    try:
        request = service.encode()
        link.sendall(b"%04x" % len(request) + request)
        answer = receive(link, _LENGTH)
        if answer == b"FAIL":
            raise Refused(receive_block(link))
        if answer != b"OKAY":
            raise ValueError(f"it answered {answer!r}")
    except BaseException:
        link.close()
        raise
    return link


@dataclass(frozen=True)
class AdbServer:
    """``adb``: the client program; ``port``: the server's, on loopback. Holds no connection."""

    adb: str = "adb"
    port: int = 5137

    def ask(self, service: str, timeout: float = ASKING) -> str:
        """The answer to a host service. Refused; InfraError E-LINK when the server is gone."""
        try:
            with open_service(self.port, service, timeout) as link:
                return receive_block(link)
        except (OSError, EOFError, ValueError) as error:
            raise InfraError(
                "E-LINK",
                f"the adb server on port {self.port} does not answer: {error}",
                fix="somebody ended it; the next attempt starts it again",
            ) from error

    def devices(self) -> list[AdbDevice]:
        """All that the server sees, whatever their state. InfraError E-LINK, E-ADB-SERVER."""
        try:
            return parse_devices(self.ask("host:devices-l"))
        except Refused as error:
            raise self._unusable(f"refuses to list devices ({error})") from error

    def features(self, transport_id: int) -> frozenset[str]:
        """What both the server and the device can do. Refused; InfraError E-LINK."""
        answer = self.ask(f"host-transport-id:{transport_id}:features")
        return frozenset(answer.strip().split(","))

    def ensure(self) -> None:
        """A server of this client's version runs. InfraError E-ADB-MISSING, E-ADB-SERVER."""
        ours = client_version(self.adb)
        running = self.version()
        if running is None:
            said = self._start()
            running = self._version_soon()
            if running is None:
                raise self._unusable(f"does not start: {last_words(said)}")
        if running != ours:
            raise self._unusable(
                f"has version {running}, and {self.adb} has {ours} and would kill it",
                "use the adb it was started with, set another `server_port`, or end it yourself"
                " while no device is in use",
            )

    def version(self) -> int | None:
        """The running server's version; None if nobody listens. InfraError E-ADB-SERVER."""
        try:
            with open_service(self.port, "host:version", ASKING) as link:
                return int(receive_block(link), 16)
        except ConnectionRefusedError:
            return None
        except OSError as error:
            raise self._unusable(f"does not answer: {error}") from error
        except (Refused, EOFError, ValueError) as error:
            raise self._unusable(f"is none: {error}") from error

    def connect(self, address: str, timeout: float) -> str:
        """``adb connect``, which exits 0 also when it failed: what it said.

        Raises InfraError E-ADB-CONNECT, also when it does not end: adb itself waits 10 s or more.
        """
        try:
            said = self._client(["connect", address], timeout)
        except DeadlineError:
            said = f"no answer within {timeout:.3g} s"
        if not said.startswith(("connected to", "already connected to")):
            raise InfraError(
                "E-ADB-CONNECT",
                f"adb cannot reach {address}: {said or 'it does not say why'}",
                fix="check address and wireless debugging; pair first where Android asks for it",
            )
        return said

    def disconnect(self, address: str, timeout: float) -> None:
        """Forget a connection that is of no use any more, so that a new one is made."""
        self._client(["disconnect", address], timeout)

    def pair(self, address: str, code: str, timeout: float) -> str:
        """Pair with the address and code that the phone shows: what adb said.

        Raises InfraError E-ADB-PAIR, E-ADB-MISSING, E-ADB-SERVER, DeadlineError E-DEADLINE.
        """
        said = self._client(["pair", address, code], timeout)
        if "Successfully paired" in said:
            return said
        old = "unknown command" in said
        raise InfraError(
            "E-ADB-PAIR",
            f"no pairing with {address}: {'this adb cannot pair' if old else said or 'no reason'}",
            fix="pairing needs platform-tools 30 or newer"
            if old
            else "open `Pair device with pairing code` again: code and port change every time",
            retryable=False,
        )

    def argv(self, *words: str) -> list[str]:
        return [self.adb, "-P", str(self.port), *words]

    def _client(self, words: Sequence[str], timeout: float) -> str:
        """What a client said in the end."""
        self.ensure()
        done = _run(self.argv(*words), timeout, f"adb {words[0]}")
        return " ".join(done.split())

    def _start(self) -> str:
        try:
            return _run(self.argv("start-server"), START_TIMEOUT, "adb start-server")
        except DeadlineError as error:
            raise self._unusable(f"does not start within {START_TIMEOUT:g} s") from error

    def _version_soon(self) -> int | None:
        """Of two that start a server at once, the one who lost waits for the other's."""
        end = time.monotonic() + ASKING
        while (running := self.version()) is None and time.monotonic() < end:
            time.sleep(0.05)
        return running

    def _unusable(self, what: str, fix: str = "set another `server_port`") -> InfraError:
        return InfraError(
            "E-ADB-SERVER",
            f"the adb server on port {self.port} {what}",
            fix=fix,
            retryable=False,
        )


def client_version(adb: str) -> int:
    """The protocol version of the client program (41 in 1.0.41). InfraError E-ADB-MISSING."""
    said = _run([adb, "version"], START_TIMEOUT, "adb version")
    found = _VERSION.search(said)
    if found is None:
        raise missing(adb, f"is no adb: it says {said[:80]!r}")
    return int(found[1])


def missing(adb: str, why: str) -> InfraError:
    return InfraError(
        "E-ADB-MISSING",
        f"the program {adb} {why}",
        fix="install adb (Debian: apt install adb) or name it as `adb` in the inventory",
        retryable=False,
    )


_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ELOOP)


def not_started(adb: str, error: OSError | ValueError) -> InfraError:
    """Why an adb client did not start.

    E-ADB-MISSING, or E-HUB-IO where this machine is short of something (processes, memory,
    descriptors, disk), which may pass.
    """
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, ValueError) or error.errno in _ABSENT:
        return missing(adb, f"cannot be run: {reason}")
    return InfraError("E-HUB-IO", f"hub: the program {adb} cannot be started: {reason}")


def _run(argv: Sequence[str], timeout: float, what: str) -> str:
    """Both streams of a client. Its exit status says nothing that is not in the words.

    To a file and not to pipes: the server that a client may start holds them open for ever.
    """
    try:
        with tempfile.TemporaryFile() as output:
            subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                timeout=timeout,
                start_new_session=True,
                check=False,
            )
            output.seek(0)
            return output.read(_MOST).decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        raise DeadlineError("E-DEADLINE", f"{what} did not end within {timeout:.3g} s") from None
    except (OSError, ValueError) as error:
        raise not_started(argv[0], error) from error
