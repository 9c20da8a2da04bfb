"""Which bundles there are and what goes into each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITE = "bookworm"
PYTHON = "python3.11"

# Named one by one and fetched without dependencies: the closure of a Debian Python has Kerberos and
# curses in it. That no library is missing is checked on the result (elf.py).
PACKAGES = (
    "gcc-12-base", "libbz2-1.0", "libc6", "libexpat1", "libffi8", "libgcc-s1", "liblzma5",
    "libpython3.11-minimal", "libpython3.11-stdlib", "libssl3", "libstdc++6", "libuuid1",
    "python3.11-minimal", "zlib1g",
)  # fmt: skip
NUMPY = ("libblas3", "libgfortran5", "liblapack3", "python3-numpy")


@dataclass(frozen=True)
class Machine:
    """``arch`` is Debian's name, ``wheels`` that of wheels; ``triplet`` of its library folders."""

    arch: str
    wheels: str
    triplet: str
    loader: str


MACHINES = {
    "aarch64": Machine("arm64", "aarch64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
    "armhf": Machine("armhf", "armv7l", "arm-linux-gnueabihf", "ld-linux-armhf.so.3"),
    "x86_64": Machine("amd64", "x86_64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
}


@dataclass(frozen=True)
class Recipe:
    """``name`` is ``<machine>-<runtime>``; its wheels are pinned in ``requirements/<name>.txt``."""

    name: str
    machine: Machine
    packages: tuple[str, ...]

    @property
    def requirements(self) -> Path:
        return HERE / "requirements" / f"{self.name}.txt"

    def key(self) -> str:
        """sha256 over all that the bundle is made by: another one means that it must be rebuilt."""
        digest = hashlib.sha256("\n".join((SUITE, *self.packages)).encode())
        sources = [*sorted(HERE.glob("*.py")), HERE / "launcher.sh", self.requirements]
        for path in sources:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def _recipe(name: str) -> Recipe:
    machine = MACHINES[name.partition("-")[0]]
    return Recipe(name, machine, PACKAGES + (NUMPY if machine.arch == "armhf" else ()))


RECIPES: Mapping[str, Recipe] = {
    path.stem: _recipe(path.stem) for path in sorted((HERE / "requirements").glob("*.txt"))
}
