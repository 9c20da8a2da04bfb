"""What is pushed to a device: the worker as one content-hashed zip, and hermetic bundles.

The zip is the same byte for byte wherever it is made. Bundles are built by `infra.bundles`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import device_worker
from orchestrator.errors import InputError

_EPOCH = (1980, 1, 1, 0, 0, 0)


class Bundle(NamedTuple):
    data: bytes
    sha256: str

    @property
    def name(self) -> str:
        return f"worker-{self.sha256[:16]}.pyz"


@functools.cache
def worker_bundle() -> Bundle:
    """Zip of the device_worker package; equal sources give equal bytes (fixed order and times)."""
    package = Path(device_worker.__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*.py")):
            info = zipfile.ZipInfo(str(path.relative_to(package.parent).as_posix()), _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
    data = buffer.getvalue()
    return Bundle(data, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class BundleFile:
    """A hermetic bundle (.tar.gz) at ``path``, in a place the hub can read; ``name`` for people."""

    name: str
    sha256: str
    size: int
    path: str


def bundle_folder() -> Path:
    """Where built bundles lie: ``$ASSAY_BUNDLES``, or the user's cache."""
    chosen = os.environ.get("ASSAY_BUNDLES") or "~/.cache/assay/bundles"
    return Path(chosen).expanduser().absolute()


def find_bundle(name: str) -> BundleFile:
    """The newest bundle of that name on this machine. Its bytes are not read.

    Raises InputError E-BUNDLE-MISSING.
    """
    folder = bundle_folder()
    try:
        manifest = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        path = folder / manifest["file"]
        found = BundleFile(name, str(manifest["sha256"]), int(manifest["size"]), str(path))
        whole = path.stat().st_size == found.size
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(
            "E-BUNDLE-MISSING",
            f"the hermetic bundle {name!r} is not built",
            where=str(folder),
            fix=f"python -m infra.bundles build {name}",
        )
    return found


MISSING, CORRUPT = 97, 98

BOOTSTRAP = f"""\
import hashlib, os, sys
path, want = sys.argv[1], sys.argv[2]
try:
    with open(path, "rb") as f:
        got = hashlib.sha256(f.read()).hexdigest()
except EnvironmentError:
    sys.exit({MISSING})
if got != want:
    sys.exit({CORRUPT})
os.environ["ASSAY_WORKER_SHA256"] = got
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, path)
from device_worker.__main__ import main
sys.exit(main(sys.argv[3:]))
"""
"""Run as ``python -c BOOTSTRAP zip sha256 args…``: the check of the worker does not trust the
file that it checks. Kept to syntax any Python 3 reads, so that an old one reaches the worker's
own clear message."""
