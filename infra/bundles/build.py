"""Build a bundle: fetch, lay out, compile, check that it is complete, archive, describe."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.virtual_farm.command import extract, run
from infra.virtual_farm.config import FarmError
from infra.virtual_farm.debian import Apt
from infra.virtual_farm.rootfs import GLIBC_TAGS
from orchestrator.devices.bundle import bundle_folder

from .archive import pack
from .elf import missing
from .licences import Part, debian_part, wheel_part
from .recipes import HERE, PYTHON, RECIPES, SUITE, Recipe

# What inference never imports. In Python: its tests, teaching and installing. In wheels: tools for
# training, conversion and browsers, and type stubs.
STDLIB = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo")
SITE = (
    "bin", "ai_edge_litert/aot", "ai_edge_litert/tools", "ai_edge_litert/vendors",
    "ai_edge_litert/_pywrap_litert_converter.so", "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
    "numpy/doc", "numpy/f2py", "onnxruntime/datasets", "onnxruntime/quantization",
    "onnxruntime/tools", "onnxruntime/transformers",
)  # fmt: skip
STUBS = ("*.pyi", "*.a", "*.h")
# glibc's own helpers for debugging and for name services, none of which is loaded.
LIBRARIES = (
    "libBrokenLocale*", "libc_malloc_debug*", "libmemusage*", "libnss_*", "libpcprofile*",
    "libthread_db*",
)  # fmt: skip


class BuildError(Exception):
    """Something the user can act on, in one line."""


def build(recipe: Recipe, *, force: bool = False, say: Any = print) -> dict[str, Any]:
    """The manifest of the bundle, built unless one of this very recipe is there.

    Writes ``NAME-<sha16>.tar.gz`` and then ``NAME.json`` into `bundle_folder()`, each at once, and
    removes older archives of the name. Raises BuildError.
    """
    folder = bundle_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{recipe.name}.lock").open("w") as lock:
            # Whoever builds the same meanwhile is waited for, and then there is nothing to do.
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = manifest(recipe.name)
            if not force and known is not None and known["recipe"] == recipe.key():
                return known
            with tempfile.TemporaryDirectory(prefix=f".{recipe.name}-", dir=folder) as scratch:
                return _build(recipe, folder, Path(scratch), say)
    except (FarmError, ValueError) as error:
        raise BuildError(f"{recipe.name}: {error}") from error
    except OSError as error:
        raise BuildError(f"{recipe.name}: {error.filename}: {error.strerror}") from error


def ensure(name: str) -> dict[str, Any]:
    """As `build`, for the recipe of that name and without a word. Raises BuildError."""
    if name not in RECIPES:
        raise BuildError(f"{name}: there is no such bundle (known: {', '.join(RECIPES)})")
    return build(RECIPES[name], say=lambda line: None)


def manifest(name: str) -> dict[str, Any] | None:
    """What NAME.json says, None unless it and its archive are there."""
    path = bundle_folder() / f"{name}.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if (path.parent / found["file"]).is_file() else None
    except (OSError, ValueError, KeyError):
        return None


def _build(recipe: Recipe, folder: Path, scratch: Path, say: Any) -> dict[str, Any]:
    key = recipe.key()
    say(f"{recipe.name}: fetching Debian's packages")
    apt = Apt(scratch / "apt", recipe.machine.arch, SUITE)
    packages = [apt.fetch_alone(package) for package in recipe.packages]
    unpacked, root = scratch / "unpacked", scratch / "root"
    unpacked.mkdir()
    for package in packages:
        extract(package, unpacked, f"unpacking {package.name}")
    say(f"{recipe.name}: fetching wheels")
    lay_out(unpacked, root, recipe)
    install_wheels(root / "site", recipe)
    parts = [
        *(debian_part(*_field(package), unpacked, root) for package in packages),
        *(wheel_part(info, root) for info in sorted((root / "site").glob("*.dist-info"))),
    ]
    say(f"{recipe.name}: compiling and archiving")
    trim(root)
    complete(root)
    compiled = precompile(root)
    write_json(root / "licences" / "licences.json", [asdict(part) for part in parts])
    sha256, size = pack(root, scratch / "bundle.tar.gz")
    made = {**describe(recipe, parts, sha256, size, compiled), "recipe": key}
    (scratch / "bundle.tar.gz").replace(folder / made["file"])
    write_json(scratch / "manifest.json", made)
    (scratch / "manifest.json").replace(folder / f"{recipe.name}.json")
    for old in folder.glob(f"{recipe.name}-{'[0-9a-f]' * 16}.tar.gz"):
        if old.name != made["file"]:
            old.unlink()
    return made


def describe(
    recipe: Recipe, parts: Sequence[Part], sha256: str, size: int, compiled: bool
) -> dict[str, Any]:
    """The manifest of a built bundle."""
    return {
        "version": 1,
        "name": recipe.name,
        "file": f"{recipe.name}-{sha256[:16]}.tar.gz",
        "sha256": sha256,
        "size": size,
        "machine": recipe.machine.wheels,
        "python": PYTHON,
        "compiled": compiled,
        "built_from": {"debian": SUITE, "requirements": recipe.requirements.name},
        "packages": {part.name: part.version for part in parts},
        "licences": [
            {"name": p.name, "version": p.version, "from": p.source, "licences": list(p.licences)}
            for p in parts
        ],
    }


def lay_out(unpacked: Path, root: Path, recipe: Recipe) -> None:
    """Python, its standard library and all shared libraries beside the loader, without links."""
    machine = recipe.machine
    for name in ("bin", "lib", "site", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(unpacked / "usr/bin" / PYTHON, root / "bin" / PYTHON)
    shutil.copytree(unpacked / "usr/lib" / PYTHON, root / "lib" / PYTHON, symlinks=False,
                    ignore_dangling_symlinks=True)  # fmt: skip
    numpy = unpacked / "usr/lib/python3/dist-packages"
    if numpy.is_dir():
        shutil.copytree(numpy, root / "site", dirs_exist_ok=True)
    below = (f"lib/{machine.triplet}", f"usr/lib/{machine.triplet}")
    places = [unpacked / base / sub for base in below for sub in ("", "blas", "lapack")]
    for library in _libraries([place for place in places if place.is_dir()]):
        shutil.copy(library.resolve(), root / "lib" / library.name)
    loader = root / "lib" / machine.loader
    loader.chmod(0o755)
    text = (HERE / "launcher.sh").read_text(encoding="utf-8")
    text = text.replace("@LOADER@", machine.loader).replace("@PYTHON@", PYTHON)
    (root / "py").write_text(text, encoding="utf-8")
    (root / "py").chmod(0o755)


def _libraries(places: Sequence[Path]) -> Iterator[Path]:
    """Each library once, under the name by which it is asked for: that of the link to it."""
    found = [p for place in places for p in sorted(place.glob("*.so*")) if p.exists()]
    behind = {link.resolve() for link in found if link.is_symlink()}
    for path in found:
        wanted = path.is_symlink() or path not in behind
        if wanted and not any(path.match(pattern) for pattern in LIBRARIES):
            yield path


def install_wheels(site: Path, recipe: Recipe) -> None:
    """Wheels for another machine; nothing of them runs here."""
    machine = recipe.machine.wheels
    tags = [f"manylinux_{glibc}_{machine}" for glibc in GLIBC_TAGS] + [f"manylinux2014_{machine}"]
    run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-input", "--no-compile", "--no-deps", "--only-binary=:all:",
            "--python-version=3.11", *(f"--platform={tag}" for tag in tags),
            "--abi=cp311", "--abi=abi3", "--abi=none", "--implementation=cp",
            "--target", site, "--requirement", recipe.requirements,
        ],
        "installing wheels",
    )  # fmt: skip


def trim(root: Path) -> None:
    """Remove what inference never loads, and what differs from one build to the next."""
    site, stdlib = root / "site", root / "lib" / PYTHON
    unneeded = [*(stdlib / name for name in STDLIB), *(site / name for name in SITE)]
    unneeded += stdlib.glob("config-*")
    for folder in (site, stdlib):
        unneeded += [p for pattern in STUBS for p in folder.rglob(pattern)]
        unneeded += folder.rglob("__pycache__")
    unneeded += (p for p in site.rglob("tests") if p.is_dir())
    for info in site.glob("*.dist-info"):
        unneeded += [info / name for name in ("INSTALLER", "REQUESTED", "direct_url.json")]
    for path in unneeded:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def complete(root: Path) -> None:
    """Drop modules of the standard library whose libraries are left out (sqlite3, curses, …).

    Raises BuildError when anything else needs a library that is not in the bundle.
    """
    for path, libraries in missing(root).items():
        if path.parent.name != "lib-dynload":
            where = path.relative_to(root)
            raise BuildError(f"{where} needs {libraries[0]}, which no package of the recipe has")
        path.unlink()


def precompile(root: Path) -> bool:
    """Write .pyc files that are valid whatever the times of the files are: True if it could be.

    The bundle's Python never writes any, and compiling takes an emulated or small device seconds.
    Only a Python of the same version writes the same format; in a process of its own, because what
    is written depends on which strings the process has seen before.
    """
    if sys.version_info[:2] != (3, 11):
        return False
    argv = [
        sys.executable, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
        "-s", str(root), "-p", "bundle", str(root / "lib" / PYTHON), str(root / "site"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    # Files with deliberate errors (tests of other packages) are none of ours: they stay .py.
    subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=False, timeout=900)
    return True


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _field(package: Path) -> tuple[str, str]:
    """Name and version of a Debian package file."""
    shown = ["dpkg-deb", "--showformat", "${Package} ${Version}", "--show"]
    name, _, version = run([*shown, package], f"reading {package.name}").partition(" ")
    return name, version
