"""Bundles for tests: tiny ones made on the spot, and the real one that runs on this machine."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from infra.bundles.archive import pack
from infra.bundles.build import BuildError, ensure
from infra.bundles.recipes import RECIPES
from orchestrator.devices.bundle import BundleFile, find_bundle

LAUNCHER = '#!/bin/sh\nexec "{python}" "$@"\n'


def small(folder: Path, name: str = "small", python: str = "python3", say: str = "") -> BundleFile:
    """A bundle whose launcher starts a Python of this machine, put where bundles are found."""
    root = folder / f"tree-{name}{say}"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "data.txt").write_text(say)
    launcher = root / "py"
    launcher.write_text(LAUNCHER.format(python=python))
    launcher.chmod(0o755)
    archive = folder / f"{name}{say}.tar.gz"
    sha256, size = pack(root, archive)
    manifest = {"file": archive.name, "sha256": sha256, "size": size}
    (folder / f"{name}.json").write_text(json.dumps(manifest))
    return BundleFile(name, sha256, size, str(archive))


def native() -> BundleFile:
    """The real bundle of this machine's architecture, built once; skips where none can be."""
    name = f"{platform.machine()}-litert"
    if name not in RECIPES:
        pytest.skip(f"no bundle for a {platform.machine()}")
    try:
        ensure(name)
    except BuildError as error:
        pytest.skip(f"no bundle: {error}")
    return find_bundle(name)
