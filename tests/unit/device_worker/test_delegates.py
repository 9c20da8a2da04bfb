"""Parts of the delegate's path that need no runtime."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_worker.errors import WorkerError
from device_worker.runtimes import delegates, probe
from device_worker.runtimes.delegates import Library, failed_run, located, refused_load, split
from device_worker.wire import Delegate
from tests.support.cli import until

TPU = Library("edgetpu", "/usr/lib/libedgetpu.so.1", "0" * 64)
INVOKED = "Could not map pages : usb:0 (No such device)"
THEIRS = "Node number 31 (EdgeTpuDelegateForCustomOp) failed to invoke."
OURS = "Node number 3 (CONV_2D) failed to invoke."
XNN = "Node number 3 (TfLiteXNNPackDelegate) failed to invoke."


def test_a_library_is_found_by_path_and_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libx.so.1"
    library.write_bytes(b"x")
    assert located(str(library)) == str(library)
    assert located(str(tmp_path)) is None, "a folder is no library"
    assert located("libx.so.1") is None
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{tmp_path}")
    assert located("libx.so.1") == str(library)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert located("~/libx.so.1") == str(library)


def test_a_link_is_recorded_as_the_file_behind_it(tmp_path: Path) -> None:
    (tmp_path / "libx.so.1.0").write_bytes(b"x")
    (tmp_path / "libx.so.1").symlink_to("libx.so.1.0")
    found = delegates.checked(Delegate("x", str(tmp_path / "libx.so.1")))
    assert found.path == str(tmp_path / "libx.so.1.0")


def test_a_trial_says_how_it_ended() -> None:
    def crash() -> None:
        faulthandler.disable()  # pytest's would print a page here
        os.kill(os.getpid(), signal.SIGSEGV)

    def fail() -> None:
        raise ValueError("seen again by the caller")

    assert probe.trial(crash, 30.0) == "SIGSEGV"
    assert probe.trial(fail, 30.0) is None
    assert probe.trial(lambda: time.sleep(600), 0.1) == probe.HANG


def test_a_child_that_hangs_goes_with_its_worker(tmp_path: Path) -> None:
    said = tmp_path / "pid"
    code = (
        "import os, pathlib, sys, time\n"
        "from device_worker.runtimes.probe import trial\n"
        "said = pathlib.Path(sys.argv[1])\n"
        "trial(lambda: (said.write_text(str(os.getpid())), time.sleep(600)), 600.0)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(said)])
    until(lambda: said.exists() and said.read_text(), "the child runs")
    child = Path("/proc", said.read_text())
    worker.kill()
    worker.wait()
    until(lambda: not child.exists() or "Z" in (child / "stat").read_text(), "it is gone")


def test_a_delegate_that_hangs_is_the_accelerators_trouble() -> None:
    with pytest.raises(WorkerError) as caught:
        delegates.prove(TPU, lambda: time.sleep(600), patience=0.1)
    assert (caught.value.kind, caught.value.code) == ("infra_error", "E-ACCELERATOR")
    assert caught.value.what == "edgetpu did not answer within 0.1 s"


@pytest.mark.parametrize(
    ("text", "delegate", "code"),
    [
        ("Encountered unresolved custom op: edgetpu-custom-op.", None, "E-DELEGATE-NEEDED"),
        ("Encountered unresolved custom op: edgetpu-custom-op.", "edgetpu", "E-DELEGATE-APPLY"),
        ("Encountered unresolved custom op: SignalWindow.", None, None),
        ("Encountered unresolved custom op: SignalWindow.", "edgetpu", None),
        (f"Internal: too old\n{THEIRS}", "edgetpu", "E-DELEGATE-APPLY"),
        (OURS, "edgetpu", None),
        (XNN, "edgetpu", None),
    ],
)
def test_who_refuses_a_model(text: str, delegate: str | None, code: str | None) -> None:
    found = refused_load(text, delegate)
    assert (found.code if found else None) == code


@pytest.mark.parametrize(
    ("text", "delegate", "lost"),
    [
        (INVOKED + THEIRS, "edgetpu", True),
        (INVOKED, "edgetpu", True),
        (OURS, "edgetpu", False),
        (XNN, "edgetpu", False),
        (INVOKED, None, False),
    ],
)
def test_whose_fault_a_failed_inference_is(text: str, delegate: str | None, lost: bool) -> None:
    found = failed_run(text, delegate)
    assert (found is not None) == lost
    if found is not None:
        assert (found.kind, found.code) == ("infra_error", "E-ACCELERATOR")
        assert "No such device" in found.what


def test_which_operators_the_named_delegate_took() -> None:
    taken = ["edgetpu-custom-op", "DEQUANTIZE", "CONV_2D"]
    assert split(taken, default_kernels=True) == 1
    assert split(taken, default_kernels=False) == 3


def test_which_machine_a_library_is_for(tmp_path: Path) -> None:
    file = tmp_path / "lib.so"
    head = bytearray(20)
    head[:6] = b"\x7fELF\x02\x01"
    head[18] = 183
    file.write_bytes(head)
    assert delegates.built_for(str(file)) == "aarch64 (64 bit)"
    head[4:6], head[18:20] = b"\x01\x02", b"\x00\x28"
    file.write_bytes(head)
    assert delegates.built_for(str(file)) == "arm (32 bit)"
    head[19] = 99
    file.write_bytes(head)
    assert delegates.built_for(str(file)) == "machine 99 (32 bit)"
    file.write_bytes(head[:10])
    assert delegates.built_for(str(file)) is None
    assert delegates.built_for(str(tmp_path / "none")) is None
    assert delegates.built_for("/proc/self/exe") is not None
