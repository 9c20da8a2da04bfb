"""The bundle: equal bytes for equal sources, and never run unless its hash is right."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

from orchestrator.devices.bundle import BOOTSTRAP, CORRUPT, MISSING, worker_bundle

PACKAGE = Path(__file__).parents[3] / "device_worker"


def start(bundle: Path, sha256: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", BOOTSTRAP, str(bundle), sha256, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_it_holds_the_package_and_nothing_else() -> None:
    bundle = worker_bundle()
    with zipfile.ZipFile(io.BytesIO(bundle.data)) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    assert held == {
        str(p.relative_to(PACKAGE.parent)): p.read_bytes() for p in PACKAGE.rglob("*.py")
    }


def test_equal_sources_give_equal_bytes() -> None:
    first = worker_bundle()
    worker_bundle.cache_clear()
    assert worker_bundle() == first
    assert first.sha256 == sha256(first.data)
    assert first.sha256[:16] in first.name


def test_a_missing_or_spoilt_bundle_is_never_run(tmp_path: Path) -> None:
    bundle = worker_bundle()
    path = tmp_path / "w.pyz"
    assert start(path, bundle.sha256).returncode == MISSING
    assert start(tmp_path, bundle.sha256).returncode == MISSING
    path.write_bytes(bundle.data[:-1])
    assert start(path, bundle.sha256).returncode == CORRUPT
    path.write_bytes(bundle.data)
    assert start(path, "0" * 64).returncode == CORRUPT
    usage = start(path, bundle.sha256, "--help")
    assert (usage.returncode, "session" in usage.stdout) == (0, True)


def test_what_the_bundle_is_started_with(tmp_path: Path) -> None:
    path = tmp_path / "w.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("device_worker/__init__.py", "")
        archive.writestr(
            "device_worker/__main__.py",
            "import os\n"
            "def main(args):\n"
            "    for key in ('ASSAY_WORKER_SHA256', 'ORT_DISABLE_TELEMETRY'):\n"
            "        print(os.environ[key])\n"
            "    print(args)\n"
            "    return 5\n",
        )
    want = sha256(path.read_bytes())
    ran = start(path, want, "session", "--token", "7")
    assert ran.returncode == 5
    assert ran.stdout.splitlines() == [want, "1", "['session', '--token', '7']"]
