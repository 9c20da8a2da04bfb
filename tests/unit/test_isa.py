"""Which CPU stands for which kind of int8 arithmetic, on any host."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import isa
from tests.support.isa import EXACT, KINDS, PAIRS

FEATURES = """
from numpy._core._multiarray_umath import __cpu_features__ as known
print(*(name for name in known if known[name]))
"""
AVX2, SSE = {"sse4_1", "avx2"}, {"sse4_1"}
ARM = {"asimd", "asimddp"}


def on(monkeypatch: pytest.MonkeyPatch, flags: set[str], machine: str = "x86_64") -> None:
    monkeypatch.setattr(isa, "flags", lambda: flags)
    monkeypatch.setattr(platform, "machine", lambda: machine)


@pytest.mark.parametrize(
    ("flags", "machine", "kind"),
    [
        (AVX2, "x86_64", PAIRS),
        (AVX2 | {"avx512f", "avx512bw"}, "x86_64", PAIRS),
        (AVX2 | {"avx512f", "avx512_vnni"}, "x86_64", EXACT),
        (AVX2 | {"avx_vnni"}, "x86_64", EXACT),
        (SSE, "x86_64", EXACT),
        (ARM, "aarch64", EXACT),
    ],
)
def test_the_kind_that_the_cpu_is_runs_on_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], machine: str, kind: str
) -> None:
    on(monkeypatch, flags, machine)
    assert [k for k in KINDS if isa.core(k).real] == [kind]
    assert f"{kind}: this CPU" in isa.summary()


def test_exact_products_are_skipped_by_name_where_the_cpu_adds_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, AVX2)
    assert isa.core(EXACT).trouble == "no VNNI here, and QEMU has no AVX-512; computed instead"
    assert "exact products: skipped (no VNNI here" in isa.summary()


def test_saturating_pairs_are_skipped_by_name_where_nothing_emulates_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, ARM, "aarch64")
    assert isa.core(PAIRS).trouble == "this machine is aarch64, not x86-64"
    on(monkeypatch, AVX2 | {"avx_vnni"})
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert isa.core(PAIRS).trouble == "no QEMU for x86-64 here (make farm)"
    assert "no QEMU for x86-64" in isa.summary()


def test_the_emulated_cpu_has_avx2_and_nothing_that_adds_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """NumPy asks the processor itself, not /proc/cpuinfo, which is the host's."""
    on(monkeypatch, AVX2 | {"avx512f", "avx512_vnni"})
    found = isa.core(PAIRS)
    if found.trouble is not None:
        pytest.skip(f"{PAIRS}: {found.trouble}")
    python = found.python(tmp_path)
    told = subprocess.run(
        [python, "-c", FEATURES], check=True, capture_output=True, text=True, timeout=120
    )
    has = set(told.stdout.split())
    assert "AVX2" in has
    assert not {name for name in has if name.startswith("AVX512")}
