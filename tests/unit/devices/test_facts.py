"""Facts over transports with a shell and nothing else: nasty names, silence, hangs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.devices.facts import (
    SCRIPT,
    Fact,
    Facts,
    arguments,
    collect,
    parsed,
    read_facts,
)
from orchestrator.errors import InfraError
from orchestrator.matrix.device_class import DeviceClass, SourceSpec, load_class
from orchestrator.transports import open_transport
from orchestrator.transports.base import Transport
from orchestrator.transports.settings import FakeSettings, Fault, LocalSettings
from tests.support import sshd
from tests.support.clock import PATIENCE

NASTY = "a b'\"$(touch x)`;*[!é"


def device_class(*facts: dict[str, Any]) -> DeviceClass:
    return DeviceClass.model_validate_json(
        json.dumps({"version": 1, "name": "x", "title": "X", "facts": facts})
    )


@contextmanager
def local(root: Path) -> Iterator[Transport]:
    with open_transport(LocalSettings(root=str(root / "device")), device="x") as transport:
        yield transport


def tree(root: Path) -> DeviceClass:
    """A device tree in a folder that a shell would trip over, a driver that fails, a FIFO."""
    base = root / NASTY / "devicetree"
    base.mkdir(parents=True)
    (base / "model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    (base / "compatible").write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    (base / "serial-number").symlink_to("/proc/self/mem")  # reading it fails
    os.mkfifo(root / "meminfo")
    # A glob must be written so that it finds the folder: its own characters are quoted by [].
    found = str(base).replace("[", "[[]").replace("*", "[*]")
    return device_class(
        {"parser": "uname", "command": ["echo", "Linux", "6.1 ; $(touch y) *", "aarch64"]},
        {"parser": "device_tree", "path": [f"{found}/*"]},
        {"parser": "governor", "path": str(root / "none*")},
        {"parser": "memory", "path": str(root / "meminfo")},
        {"parser": "nvpmodel", "command": ["no-such-tool-here", "-q"]},
        {"parser": "l4t", "command": ["sh", "-c", "echo '# R35 (release), REVISION: 4.1'; exit 3"]},
    )


TOLD = {
    "machine": "aarch64",
    "kernel": "6.1 ; $(touch y) *",
    "hardware": "Raspberry Pi 4 Model B Rev 1.4",
    "compatible": "raspberrypi,4-model-b brcm,bcm2711",
    "serial": None,
    "memory": None,
    "power_mode": None,
    "power_mode_id": None,
    "l4t": None,
}


def test_facts_over_this_machine(tmp_path: Path) -> None:
    wanted = tree(tmp_path)
    with local(tmp_path) as transport:
        facts = read_facts(transport, wanted.facts, timeout=PATIENCE)
    assert facts.values() == TOLD
    assert next(fact.source for fact in facts.facts if fact.name == "l4t").startswith("sh -c")
    assert facts.get("hardware") == TOLD["hardware"]
    assert facts.get("no such fact") is None
    assert len(facts.silent) == 4
    assert "no-such-tool-here -q" in facts.silent
    left = [path.name for path in tmp_path.rglob("*") if path.name in ("x", "y")]
    assert left == [], "a word was read as shell text"


@pytest.mark.skipif(sshd.MISSING is not None, reason=sshd.MISSING or "")
def test_facts_over_ssh(tmp_path: Path) -> None:
    wanted = tree(tmp_path)
    with (
        sshd.running(tmp_path / "sshd") as server,
        open_transport(server.settings(), device="x") as transport,
    ):
        assert read_facts(transport, wanted.facts, timeout=PATIENCE).values() == TOLD


SHELLS = [s for s in ("dash", "bash", "mksh", "ksh", "busybox") if shutil.which(s)]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_holds_in_every_shell_there_is(tmp_path: Path, shell: str) -> None:
    wanted = tree(tmp_path)
    argv = [shell, "sh"] if shell == "busybox" else [shell]
    argv += ["-c", SCRIPT, "sh", "NONCE", *arguments(wanted.facts)]
    done = subprocess.run(argv, capture_output=True, cwd=tmp_path, timeout=PATIENCE)
    assert done.stderr == b""
    raws = parsed(done.stdout, "NONCE", len(wanted.facts))
    assert collect(zip(wanted.facts, raws, strict=True)).values() == TOLD
    assert not (tmp_path / "x").exists()


def test_the_generic_class_reads_this_machine_in_one_round_trip(tmp_path: Path) -> None:
    generic = load_class("generic")
    assert generic is not None
    fault = Fault(kind="drop", on="run", after=1, times=None)
    fake = FakeSettings(root=str(tmp_path / "device"), faults=[fault])
    with open_transport(fake, device="x") as transport:
        facts = read_facts(transport, generic.facts, timeout=PATIENCE)
        with pytest.raises(InfraError):
            transport.run(["true"], timeout=10)
    assert facts.get("machine") == os.uname().machine
    assert isinstance(facts.get("memory"), int)
    assert {fact.source for fact in facts.facts} >= {"uname -srm", "/proc/cpuinfo"}


def test_a_source_that_hangs_is_unknown_and_the_others_are_told(
    tmp_path: Path,
) -> None:
    """The machine may be so busy that nobody answers in time: then it is asked again, longer."""
    wanted = device_class(
        {"parser": "uname", "command": ["uname", "-srm"]},
        {"parser": "nvpmodel", "command": ["sleep", "600"], "timeout": 1},
        {"parser": "memory", "path": "/proc/meminfo"},
    )
    for seconds in (6, 24, 96):
        with local(tmp_path) as transport:
            facts = read_facts(transport, wanted.facts, timeout=seconds)
        if facts.silent == ("sleep 600",):
            break
    assert facts.get("machine") == os.uname().machine
    assert isinstance(facts.get("memory"), int)
    assert facts.silent == ("sleep 600",)


def test_a_command_without_end_is_unknown(tmp_path: Path) -> None:
    wanted = device_class(
        {"parser": "l4t", "command": ["yes", "# R35 (release), REVISION: 4.1"]},
        {"parser": "uname", "command": ["uname", "-srm"]},
    )
    with local(tmp_path) as transport:
        facts = read_facts(transport, wanted.facts, timeout=PATIENCE)
    assert (facts.get("l4t"), facts.get("machine")) == (None, os.uname().machine)


def test_a_broken_link_is_an_error_and_not_a_device_without_facts(tmp_path: Path) -> None:
    generic = load_class("generic")
    assert generic is not None
    for kind in ("drop", "stall"):
        fault = Fault(kind=kind, on="run", times=None)
        fake = FakeSettings(root=str(tmp_path / kind), faults=[fault])
        with open_transport(fake, device="x") as transport, pytest.raises(InfraError) as caught:
            read_facts(transport, generic.facts, timeout=2)
        assert caught.value.id in ("E-LINK", "E-DEADLINE")


def test_a_device_whose_shell_is_no_shell_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    false = tmp_path / "bin" / "sh"
    false.write_text("#!/bin/sh\necho restricted shell >&2\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    wanted = device_class({"parser": "memory", "path": "/proc/meminfo"})
    with local(tmp_path) as transport, pytest.raises(InfraError) as caught:
        read_facts(transport, wanted.facts, timeout=PATIENCE)
    assert (caught.value.id, caught.value.retryable) == ("E-FACTS", False)
    assert "ended with 1: restricted shell" in str(caught.value)


def spec(parser: str, **fields: Any) -> SourceSpec:
    return SourceSpec.model_construct(parser=parser, **fields)


def test_of_several_sources_the_first_that_knows_counts() -> None:
    tree = spec("device_tree", path=("/a/*",), command=())
    dmi = spec("dmi", path=("/b/*",), command=())
    told = collect(
        [
            (tree, {"/a/model": None, "/a/serial-number": "s1"}),
            (dmi, {"/b/product_name": "PC", "/b/product_serial": "s2"}),
        ]
    )
    assert told == Facts(
        (Fact("hardware", "PC", "/b/*"), Fact("serial", "s1", "/a/serial-number")), ()
    )


@pytest.mark.parametrize(
    "output",
    [b"", b"Welcome!\n", b"\nN s 0\n\nN f /a\nabc", b"\nN s 1\n\nN s 0\n", b"\nN f /a\nx\nN = 0\n"],
)
def test_an_answer_that_is_not_whole_is_none(output: bytes) -> None:
    with pytest.raises(ValueError):
        parsed(output, "N", 2)


def test_what_was_cut_off_is_unknown_and_contents_may_be_anything() -> None:
    output = (
        b"noise\nN s 0\n\nN f /a\n\0\xff = 0\nN\n\nN = 0\n\nN f /b\nhalf\nN s 1\n\nN c \n\nN = 0\n"
    )
    assert parsed(output, "N", 2) == [{"/a": "\0\ufffd = 0\nN\n", "/b": None}, {"": ""}]
