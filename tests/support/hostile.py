"""A device that lies: a real worker behind a process that falsifies what it says and leaves.

``interpreter`` makes what stands for the device's Python. It starts the real worker, passes on
what the coordinator says, and changes the worker's lines and files as its mode has it. With
``once`` only the first answer is false: tried again, the device is honest.

This file is also the program: python hostile.py MODE ONCE PYTHON ARGUMENTS...
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def interpreter(folder: Path, mode: str, *, once: bool = False) -> str:
    """Path of a program in ``folder`` that is a Python whose workers are hostile."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"python-{mode}{'-once' if once else ''}"
    program = [sys.executable, __file__, mode, str(path) + ".done" if once else "", sys.executable]
    quoted = " ".join(f"'{word}'" for word in program)
    path.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
    path.chmod(0o755)
    return str(path)


class Result:
    """The worker's result as it stands before the lie, and its files on the device."""

    def __init__(self, message: Json, root: str) -> None:
        self.message, self.root = message, Path(root)
        self.data: Json = message["result"]
        self.output: Json = self.data["outputs"][0]

    def rewrite(self, file: Json, content: bytes) -> None:
        """Other bytes in a file, and their right hash."""
        Path(file["path"]).write_bytes(content)
        file["blob"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}

    def rewrite_output(self, change: Callable[[Any], Any]) -> None:
        """Consistent in all but what the model declares."""
        import numpy as np

        array = change(np.load(self.output["path"]))
        self.rewrite(self.output, _npy(array))
        self.output.update(dtype=str(array.dtype), shape=list(array.shape))
        rows = [hashlib.sha256(row.tobytes()).digest() for row in array]
        hashes = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)
        self.rewrite(self.data["files"]["sample_hashes"], _npy(hashes))

    def replace(self, make: Callable[[Path], object]) -> None:
        """Something else stands where the first output was."""
        path = Path(self.output["path"])
        path.unlink()
        make(path)


def _npy(array: Any) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _role(name: str) -> Callable[[Result], None]:
    def change(result: Result) -> None:
        files = result.data["files"]
        files[name.format(root=result.root)] = files["telemetry"]

    return change


def _place(result: Result) -> None:
    """Another file of the device's, with its right hash, as an output of this attempt."""
    secret = result.root.parent / "secret"
    secret.write_bytes(Path(result.output["path"]).read_bytes())
    result.output["path"] = str(secret)


def _link(result: Result) -> None:
    secret = result.root.parent / "secret"
    secret.write_bytes(Path(result.output["path"]).read_bytes())
    result.replace(lambda path: path.symlink_to(secret))


def _grow(path: Path) -> None:
    def write() -> None:
        with path.open("wb") as file:
            while True:
                file.write(bytes(1 << 12))
                file.flush()
                time.sleep(0.001)

    threading.Thread(target=write, daemon=True).start()
    while not (path.exists() and path.stat().st_size):
        time.sleep(0.001)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _claims(result: Result) -> None:
    """A header of 7.3 TiB over a few bytes, which have their right hash and size."""
    data = Path(result.output["path"]).read_bytes()
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2000000000000,), }"
    result.rewrite(result.output, data[:10] + text.ljust(117) + b"\n" + data[128:])


def _announces(result: Result) -> None:
    result.output["shape"] = [result.output["shape"][0], 10**12]
    result.output["blob"]["size"] = 4 * result.output["shape"][0] * 10**12 + 128


def _telemetry(result: Result) -> None:
    lines = b'{"t_s":0.0,"values":{"temp/cpu":NaN}}\n' * 2
    result.rewrite(result.data["files"]["telemetry"], lines)


def _latency(result: Result) -> None:
    import numpy as np

    file = result.data["files"]["latency_ns"]
    result.rewrite(file, _npy(np.full_like(np.load(file["path"]), -1)))


def _second_output(result: Result) -> None:
    second = Path(result.output["path"]).with_name("output_1.npy")
    second.write_bytes(Path(result.output["path"]).read_bytes())
    result.data["outputs"].append({**result.output, "path": str(second)})


def _set(*path: str, to: Any) -> Callable[[Result], None]:
    def change(result: Result) -> None:
        place = result.data
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


RESULTS: dict[str, Callable[[Result], None]] = {
    "role-relative": _role("../../../evil"),
    "role-absolute": _role("{root}/../evil"),
    "place": _place,
    "link": _link,
    "wrong-hash": lambda r: r.output["blob"].update(sha256="0" * 64),
    "flipped-file": lambda r: _flip(Path(r.output["path"])),
    "another-attempt": _set("attempt", to="f" * 32),
    "nan": _set("run_ns", to=float("nan")),
    "nan-telemetry": _telemetry,
    "negative-latency": _latency,
    "count": _second_output,
    "shape": lambda r: r.rewrite_output(lambda a: a.repeat(2, axis=1)),
    "dtype": lambda r: r.rewrite_output(lambda a: a.astype("float64")),
    "claims-tebibytes": _claims,
    "announces-tebibytes": _announces,
    "fifo": lambda r: r.replace(os.mkfifo),
    "endless": lambda r: r.replace(lambda path: path.symlink_to("/dev/zero")),
    "grows": lambda r: r.replace(_grow),
    "sparse": lambda r: r.replace(_sparse),
    "board": _set("environment", "board", to=[1, 2]),
}
"""What is changed in a result and in its files."""

LINES: dict[str, bytes] = {
    "heartbeat": b'{"type":"heartbeat","id":"x"}\n',
    "deep": b"[" * 900_000 + b"\n",
    "surrogate": b'{"type":"done","id":1,"x":"\\ud800"}\n',
}
"""Printed instead of a result."""

ENDLESS = ("long-line", "slow-loris")
MODES = (*RESULTS, *LINES, *ENDLESS)


def main(mode: str, once: str, *command: str) -> int:
    root = command[command.index("--root") + 1]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    for line in worker.stdout:
        message = json.loads(line)
        if message.get("type") == "result" and not (once and Path(once).exists()):
            if once:
                Path(once).touch()
            _lie(mode, message, root)
            continue
        if mode == "flipped-file" and message.get("type") == "content":
            message["files"] = {p: _now(p) for p in message["files"]}
            line = json.dumps(message).encode() + b"\n"
        _print(line)
    return worker.wait()


def _now(path: str) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode()


def _lie(mode: str, message: Json, root: str) -> None:
    if mode in LINES:
        _print(LINES[mode])
        return
    while mode == "long-line":  # a gigabyte would do; nobody listens that long
        _print(b"x" * (1 << 20))
    while mode == "slow-loris":
        _print(b"{")
        time.sleep(0.2)
    RESULTS[mode](Result(message, root))
    _print(json.dumps(message).encode() + b"\n")


def _print(data: bytes) -> None:
    try:
        os.write(1, data) if len(data) < 4096 else _all(data)
    except BrokenPipeError:
        os._exit(1)


def _all(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
