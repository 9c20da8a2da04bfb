"""The two kinds of int8 arithmetic of CPUs: which one this CPU has, what stands for the other.

A CPU with AVX2 and without VNNI adds the products of bytes in pairs in int16, where they saturate;
with VNNI, with SSE only, or on ARM they are exact. Tests marked ``isa`` ask both kinds: this CPU is
one; saturating pairs can be emulated on x86 (QEMU's Haswell); VNNI cannot (QEMU has no AVX-512), so
what it answers is computed (`tests.support.integers`), and the row that would ask it is skipped.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.virtual_farm import rootfs
from infra.virtual_farm.config import Paths, load_definitions

VNNI = {"avx512_vnni", "avx_vnni"}
PAIRS, EXACT = "pairs in int16", "exact products"
KINDS = (PAIRS, EXACT)
NO_VNNI = "no VNNI here, and QEMU has no AVX-512; computed instead"


def saturates(isa: Iterable[str]) -> bool:
    """Whether ONNX Runtime's U8S8 kernels add products in 16 bits on such a CPU.

    AVX2 without VNNI does (VPMADDUBSW); SSE and ARM kernels do not.
    """
    return "avx2" in set(isa) and not VNNI & set(isa)


def needs_exact(isa: Iterable[str]) -> None:
    """Skip a test whose host has to multiply exactly, where it does not: those are marked too."""
    if saturates(isa):
        pytest.skip(f"{EXACT}: {NO_VNNI}")


def flags() -> set[str]:
    """This CPU's, as Linux names them; none where it does not say."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    named = (line.partition(":") for line in lines)
    return {
        f for key, _, said in named if key.strip() in ("flags", "Features") for f in said.split()
    }


def kind_here() -> str:
    return PAIRS if saturates(flags()) else EXACT


@dataclass(frozen=True)
class Core:
    """``command``: starts Python on a CPU of this ``kind``; ``trouble``: why nothing here does."""

    kind: str
    command: tuple[str, ...] = ()
    trouble: str | None = None

    @property
    def real(self) -> bool:
        return self.command == (sys.executable,)

    def python(self, folder: Path) -> str:
        """The command as one program, written into ``folder`` where it is not one."""
        if self.real:
            return sys.executable
        program = folder / "python"
        words = " ".join(f"'{word}'" for word in self.command)
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        program.chmod(0o755)
        return str(program)


def core(kind: str) -> Core:
    if kind == kind_here():
        return Core(kind, (sys.executable,))
    if kind == EXACT:
        return Core(kind, trouble=NO_VNNI)
    if platform.machine() != "x86_64":
        return Core(kind, trouble=f"this machine is {platform.machine()}, not x86-64")
    haswell = load_definitions().boards["qemu-haswell"]
    pinned = load_definitions().qemus[haswell.qemu_version]
    of_farm = rootfs.qemu_path(Paths.from_environment(), pinned, haswell.arch)
    known = (str(of_farm), "qemu-x86_64-static", "qemu-x86_64")
    qemu = next((found for name in known if (found := shutil.which(name))), None)
    if qemu is None:
        return Core(kind, trouble="no QEMU for x86-64 here (make farm)")
    return Core(kind, (qemu, "-cpu", haswell.qemu_cpu, sys.executable))


def _said(core: Core) -> str:
    if core.trouble is not None:
        return f"{core.kind}: skipped ({core.trouble})"
    return f"{core.kind}: {'this CPU' if core.real else f'emulated ({core.command[0]})'}"


def summary() -> str:
    """Which kind is real here, which emulated, which skipped, and what the CPU says: one line."""
    deciding = sorted(flags() & {"avx2", "avx512f", "asimddp", "i8mm", *VNNI})
    has = ", ".join(deciding) or "none of the flags that decide"
    kinds = "; ".join(_said(core(kind)) for kind in KINDS)
    return f"int8 arithmetic: {platform.machine()} with {has}; {kinds}"


if __name__ == "__main__":
    print(summary())  # noqa: T201 - what this command is for
