"""An adbd for what the real one cannot be made to do: ``python -m`` this module PORT MODE.

``unauthorized``: refuses every key. ``mute``: takes the connection and never answers. ``drop``:
closes it at the first word. ``old``: greets as Android 6 did, without the shell protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.adbd import await_port, free_port

MODES = ("unauthorized", "mute", "drop", "old")

_HEADER = struct.Struct("<6I")
_MASK = 0xFFFFFFFF
_VERSION, _MAX_DATA = 0x01000001, 256 * 1024
_TOKEN = 1
_BANNER = b"device::ro.product.name=mini;ro.product.model=Mini;ro.product.device=mini;features=cmd"


def message(command: bytes, first: int, second: int, data: bytes = b"") -> bytes:
    number = int.from_bytes(command, "little")
    head = _HEADER.pack(number, first, second, len(data), sum(data) & _MASK, number ^ _MASK)
    return head + data


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """Command and first argument of the next message; its data is not looked at."""
    number, first, _, length, _, check = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if number ^ _MASK != check:
        raise ValueError("not the adb protocol")
    await reader.readexactly(length)
    return number.to_bytes(4, "little"), first


async def serve(mode: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            command, first = await _read(reader)
            if mode == "drop":
                break
            if mode == "mute":
                continue
            if command == b"CNXN":
                if mode == "unauthorized":
                    writer.write(message(b"AUTH", _TOKEN, 0, os.urandom(20)))
                else:
                    writer.write(message(b"CNXN", _VERSION, _MAX_DATA, _BANNER))
            elif command == b"AUTH" and first != 3:
                # A signature: refused, until the client offers its public key (3) and waits.
                writer.write(message(b"AUTH", _TOKEN, 0, os.urandom(20)))
            elif command == b"OPEN":
                writer.write(message(b"CLSE", 0, first))
            await writer.drain()
    writer.close()


async def main(port: int, mode: str) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(mode, reader, writer)

    server = await asyncio.start_server(client, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


@contextlib.contextmanager
def running(mode: str) -> Iterator[str]:
    """Its address, ``host:port``."""
    assert mode in MODES
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.mini_adbd", str(port), mode],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ) as process,
        ):
            try:
                await_port(port, process, log)
                yield f"127.0.0.1:{port}"
            finally:
                process.kill()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
