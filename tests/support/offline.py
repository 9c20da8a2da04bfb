"""What happens to a packed archive away from the farm: unpacked, run by hand, tampered with."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from device_worker.archive import RESULT_FILE, seal

Change = Callable[[dict[str, Any], dict[str, bytes]], None]


def unpack(archive: Path, into: Path) -> Path:
    """The folder that the archive makes, with the tools that a board has."""
    into.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xzf", archive, "-C", into], check=True)
    (folder,) = into.glob("assay-pack-*")
    return folder


@functools.cache
def _alone() -> tuple[str, ...]:
    """What runs a command without any network, nothing where that is not allowed."""
    try:
        subprocess.run(["unshare", "-n", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    return ("unshare", "-n")


def by_hand(
    folder: Path, *arguments: str, shell: Sequence[str] = ("sh",), timeout: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """``sh run.sh`` with nothing of our environment but PATH, and without a network."""
    return subprocess.run(
        [*_alone(), "env", "-i", f"PATH={os.environ['PATH']}", *shell, "run.sh", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def result_of(folder: Path) -> Path:
    (found,) = folder.glob("assay-result-*.tar.gz")
    return found


def read(result: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The document of a result archive and its files, by name."""
    with tarfile.open(result) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    return json.loads(files.pop(RESULT_FILE)), files


def write(
    path: Path, document: dict[str, Any] | bytes, files: Mapping[str, bytes | tarfile.TarInfo]
) -> Path:
    """A result archive; a TarInfo stands for itself, without content."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, content in {RESULT_FILE: text, **files}.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def tampered(result: Path, path: Path, change: Change, *, sealed: bool = True) -> Path:
    """A copy whose document and files ``change`` has had its way with; sealed as if untouched."""
    document, files = read(result)
    change(document, files)
    if sealed:
        document["seal"] = seal(document["manifest_sha256"], document)
    return write(path, document, files)
