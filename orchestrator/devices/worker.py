"""One warm worker process on a device, spoken to in the messages of device_worker.wire."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from device_worker import messages, plain, wire
from orchestrator.errors import (
    AssayError,
    DeadlineError,
    InfraError,
    ModelError,
    NotAvailableError,
)
from orchestrator.queue.fences import Refusal, RefusedError, Remembered
from orchestrator.results.finished import shown
from orchestrator.transports.base import Channel

T = TypeVar("T")

KEEPALIVE_S = 10.0
"""A ping is sent this often while a job runs: the worker ends itself when it hears nothing."""


EXIT_S = 2.0
"""How long after the end of its output a process may take to have an exit status."""

FOR_GOOD = frozenset({"E-INPUT-MISFIT"})
"""What a worker says that another attempt with the same job would only hear again."""

_GARBAGE_LIMIT = 20
_LITTER_BYTES = 4096

ERROR_ID = re.compile(r"E-[A-Z0-9-]{1,40}")

_PYTHON_MISSING = {126, 127}
_PYTHON_OLD = 78
_STALE = 75


class Worker:
    """Not thread-safe: one thread drives one worker."""

    def __init__(self, channel: Channel, *, where: str, silence: float) -> None:
        self._channel, self._where, self._silence = channel, where, silence
        self._id, self._sent, self._mute = 0, time.monotonic(), False
        self.hello: dict[str, Any] = {}
        self.clock_offset: float | None = None
        """Device's clock minus ours, seconds; None when the worker named no time."""

    def greet(self, timeout: float) -> None:
        """Wait for the hello. Raises InfraError naming why the process did not get that far."""
        late = self._late("E-SILENCE", f"worker did not start within {timeout:g} s")
        message = self._read(time.monotonic() + timeout, late)
        if message["type"] == "error":
            raise self._failure(message)
        if message["type"] != "hello" or message["protocol"] != wire.PROTOCOL:
            raise InfraError(
                "E-WORKER-PROTOCOL",
                f"worker speaks {message.get('protocol')!r}, this farm speaks {wire.PROTOCOL}",
                where=self._where,
                retryable=False,
            )
        self.hello = message
        if (clock := message["clock_unix"]) is not None:
            self.clock_offset = round(clock - time.time(), 3)

    def ask(self, op: str, *, timeout: float, **fields: Any) -> dict[str, Any]:
        """Send one request and return its reply, whose fields are those of messages.MESSAGES.

        Raises DeadlineError E-SILENCE without one, InfraError E-WORKER-GARBAGE for another one.
        """
        late = self._late("E-SILENCE", f"worker did not answer {op!r} within {timeout:g} s")
        return self._request(op, fields, timeout, late)

    def _request(
        self,
        op: str,
        fields: Mapping[str, Any],
        timeout: float,
        late: DeadlineError,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        self._id += 1
        self._send({"op": op, "id": self._id, **fields})
        reply = self._reply(self._id, timeout, late, progress)
        if reply["type"] != messages.ANSWERS[op]:
            raise self._garbage(f"answers {op!r} with {reply['type']!r}")
        return reply

    def ping(self, timeout: float) -> float:
        """Round trip of a nonce through the worker itself, in seconds."""
        nonce, start = secrets.token_hex(8), time.monotonic()
        if self.ask("ping", nonce=nonce, timeout=timeout)["nonce"] != nonce:
            raise self._garbage("sent a ping back changed")
        return time.monotonic() - start

    def run(
        self, job: wire.Job, *, timeout: float, progress: Callable[[int], None] | None = None
    ) -> wire.JobResult:
        """Run a job to its result.

        Raises DeadlineError E-CELL-TIMEOUT / E-SILENCE and the worker's own errors as ModelError,
        InfraError or NotAvailableError.
        """
        late = self._late("E-CELL-TIMEOUT", f"the cell was not done within {timeout:g} s")
        reply = self._request("run", {"job": wire.dump(job)}, timeout, late, progress)
        return self._result(wire.JobResult, reply)

    def _result(self, cls: type[T], reply: Mapping[str, Any]) -> T:
        try:
            messages.check_environment(reply["result"].get("environment"))
            return wire.load(cls, reply["result"])
        except wire.WireError as error:
            raise self._garbage(f"gives a result that is none: {error}") from error

    def _garbage(self, what: str) -> InfraError:
        return InfraError(
            "E-WORKER-GARBAGE",
            shown(f"the worker {what}"),
            where=self._where,
            fix="find out what else writes to its output, or suspect the device",
        )

    def batch(self, batch: wire.Batch, *, timeout: float) -> wire.BatchResult:
        """Run a batch to its result. Raises as `run` does, for what no trial could be tried."""
        late = self._late("E-CELL-TIMEOUT", f"the batch was not done within {timeout:g} s")
        reply = self._request("batch", {"batch": wire.dump(batch)}, timeout, late)
        return self._result(wire.BatchResult, reply)

    def was_cut_off(self, timeout: float) -> bool:
        """Whether a worker that fell wholly silent speaks again, or its channel turns out broken.

        Then it was the link: a worker's heartbeat goes on whatever the model does.
        """
        if not self._mute:
            return False
        try:
            return self._channel.read_line(timeout) is not None
        except DeadlineError:
            return False
        except InfraError:
            return True

    def close(self) -> None:
        """Say goodbye if the worker still listens; the channel's close kills it otherwise."""
        try:
            self._send({"op": "bye", "id": 0})
        except AssayError:
            pass  # already gone: nobody to say goodbye to
        finally:
            self._channel.close()

    def kill(self) -> None:
        self._channel.close(0.0)

    def _send(self, message: dict[str, Any]) -> None:
        self._sent = time.monotonic()
        self._channel.send(plain.encode(message))

    def _late(self, id: str, what: str) -> DeadlineError:
        return DeadlineError(
            id, what, where=self._where, fix="raise the matrix' timeouts if it is only slow"
        )

    def _reply(
        self,
        ident: int,
        timeout: float,
        late: DeadlineError,
        progress: Callable[[int], None] | None,
    ) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while True:
            message = self._read(deadline, late)
            kind = message["type"]
            if kind == "error" and message["id"] in (ident, None):
                raise self._failure(message)
            if message["id"] != ident:
                continue
            if kind != "progress":
                return message
            if progress is not None:
                progress(message["done"] or 0)

    def _read(self, deadline: float, late: DeadlineError) -> dict[str, Any]:
        """Next message that is not a heartbeat. Silence is counted from the last line heard.

        Raises ``late`` at the deadline, DeadlineError E-SILENCE before it where nothing is heard.
        """
        heard, garbage = time.monotonic(), 0
        while True:
            now = time.monotonic()
            if now >= deadline:
                # Heartbeats never pause this long, however slowly a request is worked off.
                self._mute = now - heard >= self._silence / 2
                raise late
            if now - heard >= self._silence:
                self._mute = True
                raise self._late("E-SILENCE", f"worker silent for {self._silence:g} s")
            # Heartbeats keep us from ever waiting long, so the time to ping goes by our own sends.
            if self.hello and now - self._sent >= KEEPALIVE_S:
                self._send({"op": "ping", "id": -1, "nonce": ""})
            wait = min(KEEPALIVE_S, deadline - now, heard + self._silence - now)
            try:
                line = self._channel.read_line(max(wait, 0.001))
            except DeadlineError:
                continue
            if line is None:
                raise self._ended()
            try:
                message = messages.message(line)
            except wire.WireError as error:
                garbage += 1
                # A library may print a word; what looks like a message and is none is the worker's.
                litter = not line.startswith(b"{") and len(line) <= _LITTER_BYTES
                if not litter or garbage >= _GARBAGE_LIMIT:
                    raise self._garbage(f"prints {error}") from error
                continue
            heard = time.monotonic()
            if message["type"] not in ("heartbeat", "pong") or (message["id"] or -1) > 0:
                return message

    def _ended(self) -> InfraError:
        code, tail = self._exit_code(), self._channel.stderr_tail().strip()
        last = shown(tail.splitlines()[-1]) if tail else "no message"
        if code in _PYTHON_MISSING:
            return InfraError(
                "E-DEVICE-PYTHON",
                f"cannot start Python: {last}",
                where=self._where,
                fix="set 'python' of this device in the inventory",
                retryable=False,
            )
        if code == _PYTHON_OLD:
            # The text already ends with the ID: it must be plain where no coordinator reads it.
            what = last.removeprefix("assay worker: ").removesuffix(" [E-PYTHON-OLD]")
            return InfraError(
                "E-PYTHON-OLD",
                what,
                where=self._where,
                fix="set 'python' of this device in the inventory",
                retryable=False,
            )
        if code == _STALE:
            return InfraError("E-LEASE-STALE", last, where=self._where, retryable=False)
        if code in (-9, 137):
            return InfraError(
                "E-WORKER-KILLED",
                "worker was killed (SIGKILL; the out-of-memory killer does this)",
                where=self._where,
            )
        how = "killed by a signal, or its link was lost" if code is None else f"exit {code}"
        return InfraError("E-WORKER-DIED", f"worker ended ({how}): {last}", where=self._where)

    def _exit_code(self) -> int | None:
        """The end of the stream may be seen a moment before the exit status is known."""
        give_up = time.monotonic() + EXIT_S
        while (code := self._channel.returncode()) is None and time.monotonic() < give_up:
            time.sleep(0.01)
        return code

    def _failure(self, message: dict[str, Any]) -> AssayError:
        code, what = message["code"] or "E-WORKER-ERROR", shown(message["what"] or "")
        fix = shown(message["mend"] or "") or None
        if not ERROR_ID.fullmatch(code):
            return self._garbage(f"reports the error {code!r}: {what}")
        match message["kind"]:
            case "model_error":
                return ModelError(code, what, where=self._where, fix=fix)
            case "not_available":
                return NotAvailableError(code, what, where=self._where, fix=fix)
            case kind:
                retryable = kind != "stale" and code not in FOR_GOOD
                refusal = self._refusal(message)
                make = InfraError if refusal is None else RefusedError
                error = make(code, what, where=self._where, fix=fix, retryable=retryable)
                if isinstance(error, RefusedError) and refusal is not None:
                    error.refusal = refusal
                return error

    def _refusal(self, message: Mapping[str, Any]) -> Refusal | None:
        remembered, holder = message["remembered"], message["holder"]
        try:
            if remembered is not None:
                return Refusal(remembered=Remembered.of(remembered))
        except ValueError as error:
            what = f"it remembers a lease that cannot be one: {error}"
            raise InfraError(
                "E-LEASE-CORRUPT",
                what,
                where=self._where,
                fix="delete fences.json and lease.json there once no farm uses it",
                retryable=False,
            ) from error
        return None if holder is None else Refusal(holder=shown(holder))
