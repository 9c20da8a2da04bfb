from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from device_worker import environment
from device_worker.wire import RuntimeSpec

_ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd asimddp crc32
CPU implementer\t: 0x41
CPU part\t: 0xd0b

processor\t: 1
Features\t: crc32 asimd fp
CPU implementer\t: 0x41
CPU part\t: 0xd08

Hardware\t: BCM2835
"""


def test_arm_cores_are_told_apart_and_share_flags() -> None:
    found = environment.parse_cpuinfo(_ARM)
    assert found["flags"] == ["asimd", "crc32", "fp"], "a flag counts only if every core has it"
    assert [core["CPU part"] for core in found["cores"]] == ["0xd0b", "0xd08"]


def test_x86_flags() -> None:
    found = environment.parse_cpuinfo(
        "processor : 0\nvendor_id : GenuineIntel\nmodel : 60\nflags : sse avx2 fma\n"
    )
    assert found["flags"] == ["avx2", "fma", "sse"]
    assert found["cores"] == [{"vendor_id": "GenuineIntel", "model": "60"}]


def test_board_file_and_governors(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/assay-board.json").write_text(json.dumps({"class": "qemu-a72"}))
    (tmp_path / "etc/os-release").write_text('NAME="Debian"\nPRETTY_NAME="Debian 12"\n')
    for core, governor in (("cpu0", "ondemand"), ("cpu1", "performance")):
        folder = tmp_path / f"sys/devices/system/cpu/{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(governor + "\n")
    found = environment.describe(root=str(tmp_path))
    assert found["board"] == {"class": "qemu-a72"}
    assert found["os"] == "Debian 12"
    assert found["governors"] == ["ondemand", "performance"]


@pytest.mark.parametrize("place", ["proc/device-tree", "sys/firmware/devicetree/base"])
def test_the_hardware_is_found_wherever_the_device_tree_is_shown(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    found = environment.describe(root=str(tmp_path))
    assert found["hardware"] == "Raspberry Pi 4 Model B Rev 1.4"


def test_unknown_facts_are_none(tmp_path: Path) -> None:
    found = environment.describe(root=str(tmp_path))
    assert found["board"] is found["governors"] is found["os"] is found["hardware"] is None
    assert found["isa_flags"] == []


def test_a_damaged_board_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/assay-board.json").write_text("{")
    assert "no JSON" in environment.describe(root=str(tmp_path))["board"]["error"]


def test_the_runtime_in_use_is_described_with_its_build() -> None:
    spec = RuntimeSpec("onnxruntime", threads=2)
    found = environment.describe(spec, {"build_info": "abc", "version": None})
    assert found["threads"] == 2
    assert found["runtime"]["name"] == "onnxruntime"
    assert found["runtime"]["build_info"] == "abc"
    assert found["runtime"]["version"] == found["runtimes"]["onnxruntime"]["version"]
    assert len(found["runtime"]["native_sha256"]) == 64


def test_facts_import_neither_numpy_nor_a_runtime() -> None:
    code = (
        "import sys; from device_worker import environment; environment.describe();"
        "print([m for m in ('numpy', 'onnxruntime', 'ai_edge_litert') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_equal_environments_have_equal_json() -> None:
    one, two = environment.describe(), environment.describe()
    assert json.dumps(one) == json.dumps(two)


@pytest.fixture
def getprop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program of this text first on the path, as Android's own would be."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def scripted(body: str) -> None:
        (folder / "getprop").write_text(f"#!/bin/sh\n{body}\n")
        (folder / "getprop").chmod(0o755)

    return scripted


def test_android_says_what_it_is_by_its_properties(
    tmp_path: Path, getprop: Callable[[str], None]
) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("Some SoC reference board\0")
    text = """cat <<'END'
[ro.build.fingerprint]: [google/panther/panther:14/AP1A.240305/1:user/release-keys]
[ro.build.version.release]: [14]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 7]
[ro.serialno]: [2A011FDH200ABC]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G2]
END"""
    getprop(text)
    found = environment.describe(root=str(tmp_path))
    assert {n: found[n] for n in ("hardware", "os", "fingerprint", "soc")} == {
        "hardware": "Google Pixel 7",
        "os": "Android 14",
        "fingerprint": "google/panther/panther:14/AP1A.240305/1:user/release-keys",
        "soc": "Google Tensor G2",
    }
    assert "2A011FDH200ABC" not in json.dumps(found), "two units of a product are one environment"


def test_a_getprop_that_hangs_or_fails_costs_its_time_and_no_more(
    tmp_path: Path, getprop: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = dataclasses.replace(environment._GETPROP, timeout_s=0.3)
    monkeypatch.setattr(environment, "_GETPROP", quick)
    for turn, body in enumerate(("sleep 30", "echo '[ro.soc.model]: [x]'; exit 1")):
        getprop(body)
        begin = time.monotonic()
        found = environment.describe(root=str(tmp_path / str(turn)))
        assert time.monotonic() - begin < 10
        assert found["hardware"] is found["os"] is found.get("fingerprint") is None


def test_what_is_no_android_says_nothing_of_it(tmp_path: Path) -> None:
    if shutil.which("getprop"):
        pytest.skip("this machine has a getprop")
    assert not {"fingerprint", "soc"} & set(environment.describe(root=str(tmp_path)))
