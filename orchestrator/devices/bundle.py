"""The worker as one content-hashed zip: what is pushed to a device, byte for byte the same."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import device_worker

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
