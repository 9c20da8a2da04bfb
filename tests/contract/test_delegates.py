"""A delegate in real worker processes: both packages, a real plug-in that stands in for libedgetpu.

What the stand-in cannot show - libedgetpu's ABI, its answers, its speed - is shown nowhere here.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_worker import wire
from device_worker.cache import sha256_file
from tests.contract.test_runtimes import TFLITE_PYTHON
from tests.support import edgetpu
from tests.unit.device_worker.harness import WorkerProcess

SAMPLES = 5
X86 = os.uname().machine == "x86_64"
PYTHON = {"litert": sys.executable, "tflite-runtime": str(TFLITE_PYTHON)}


@pytest.fixture(params=PYTHON)
def runtime(request: pytest.FixtureRequest) -> str:
    if not Path(PYTHON[request.param]).exists():
        pytest.skip("no .venv-tflite on this machine: tflite-runtime is not available here")
    return str(request.param)


class Bench:
    """A worker, a plugged-in unit and the compiled model."""

    def __init__(self, runtime: str, folder: Path) -> None:
        self.runtime, self.folder = runtime, folder
        self.cable = folder / "cable"
        self.cable.write_text("")
        self.model = edgetpu.compiled(folder / "net_edgetpu.tflite")
        self.process = WorkerProcess(folder / "root", python=PYTHON[runtime])
        self.count = 0

    def spec(self, library: str | Path | None = None, **options: str) -> wire.RuntimeSpec:
        path = str(library or edgetpu.library())
        plugged = {"device": "usb", "state": str(self.cable)}
        return wire.RuntimeSpec(
            self.runtime, delegate=wire.Delegate("edgetpu", path, plugged | options)
        )

    def job(self, spec: wire.RuntimeSpec, model: Path | None = None, **fields: Any) -> wire.Job:
        self.count += 1
        given = {"in": edgetpu.codes(SAMPLES)}
        return self.process.job(
            model or self.model, given, spec, attempt=f"a{self.count}", warmup=1, **fields
        )

    def refused(self, spec: wire.RuntimeSpec, model: Path | None = None) -> tuple[str, str, str]:
        found = self.process.refused(self.job(spec, model))
        assert "\n" not in found[2]
        return found


@pytest.fixture
def bench(runtime: str, tmp_path: Path) -> Any:
    made = Bench(runtime, tmp_path)
    with made.process:
        yield made


def test_a_compiled_model_runs_on_the_delegate_and_says_so(bench: Bench) -> None:
    spec = bench.spec()
    result = bench.process.run(bench.job(spec, repeat=2))
    assert result.backend.planned == "edgetpu"
    assert result.backend.nodes["edgetpu"] == 1
    assert sum(result.backend.nodes.values()) == 2, "and the DEQUANTIZE somewhere on the CPU"
    assert result.backend.fallbacks == []
    assert result.repeats.mismatches == 0
    output = np.load(result.outputs[0].path)
    assert output.shape == (SAMPLES, 8)
    assert len({row.tobytes() for row in output}) == SAMPLES
    library = edgetpu.library()
    assert result.environment["delegate"] == {
        "name": "edgetpu",
        "library": str(library),
        "sha256": sha256_file(str(library)),
        "options": spec.delegate.options if spec.delegate else None,
        "version": "stand-in, computes no network",
        "standin": "standin-edgetpu",
    }
    assert "delegate" not in result.environment["runtime"]


def test_both_runtimes_get_the_same_answers(tmp_path: Path) -> None:
    if not TFLITE_PYTHON.exists():
        pytest.skip("no .venv-tflite on this machine: tflite-runtime is not available here")
    answers = set()
    for name in PYTHON:
        (tmp_path / name).mkdir()
        bench = Bench(name, tmp_path / name)
        with bench.process:
            result = bench.process.run(bench.job(bench.spec()))
            answers.add(result.outputs[0].blob.sha256)
    assert len(answers) == 1


def test_a_compiled_model_without_the_delegate_is_not_available(bench: Bench) -> None:
    kind, code, what = bench.refused(wire.RuntimeSpec(bench.runtime))
    assert (kind, code) == ("not_available", "E-DELEGATE-NEEDED")
    assert what == "compiled for the Edge TPU: runs only with its delegate"


def test_a_model_for_the_cpu_is_given_nothing_by_the_delegate(bench: Bench) -> None:
    plain = edgetpu.source(bench.folder / "net.tflite")
    backend = bench.process.run(bench.job(bench.spec(), plain)).backend
    assert backend.fallbacks[0] == "asked for edgetpu, it was given no operator"
    assert "edgetpu" not in backend.nodes


def test_a_library_that_cannot_be_loaded_is_not_available(bench: Bench) -> None:
    text = bench.folder / "text.so"
    text.write_text("no library")
    # The header of an arm64 library is all the loader looks at before it refuses.
    other = bench.folder / "arm64.so"
    elf = bytearray(edgetpu.library().read_bytes())
    elf[18:20] = (183 if elf[18] != 183 else 62).to_bytes(2, "little")
    other.write_bytes(elf)
    narrow = bench.folder / "32bit.so"
    elf[4] = 1
    narrow.write_bytes(elf)
    libm = Path("/lib/x86_64-linux-gnu/libm.so.6")
    cases: list[tuple[str | Path, str]] = [
        (bench.folder / "gone.so", "no library"),
        ("libno-such-thing.so.1", "no library libno-such-thing.so.1 on the device"),
        (text, "file too short"),
        (other, f"it is built for {'aarch64' if X86 else 'x86_64'} (64 bit), this process for "),
        (narrow, "wrong ELF class"),
        *([(libm, "undefined symbol: tflite_plugin_create_delegate")] if libm.exists() else []),
    ]
    for library, says in cases:
        kind, code, what = bench.refused(bench.spec(library))
        assert (kind, code) == ("not_available", "E-DELEGATE-LIBRARY"), library
        assert says in what, what
    bench.process.run(bench.job(bench.spec()))


def test_no_unit_and_refused_options_are_not_available(bench: Bench) -> None:
    kind, code, what = bench.refused(bench.spec(device="usb:9"))
    assert (kind, code) == ("not_available", "E-DELEGATE-DEVICE")
    assert what == "edgetpu: no accelerator answers at 'usb:9'"
    for options in ({"no-such": "1"}, {"fault": "refuse"}):
        kind, code, what = bench.refused(bench.spec(**options))
        assert (kind, code) == ("not_available", "E-DELEGATE-DEVICE")
        assert what == "edgetpu: the delegate does not take these options"


def test_a_library_other_than_the_pinned_one_is_refused(bench: Bench) -> None:
    spec = bench.spec()
    assert spec.delegate is not None
    right = replace(spec.delegate, sha256=sha256_file(spec.delegate.library))
    bench.process.run(bench.job(replace(spec, delegate=right)))
    wrong = replace(spec.delegate, sha256="0" * 64)
    kind, code, what = bench.refused(replace(spec, delegate=wrong))
    assert (kind, code) == ("infra_error", "E-DELEGATE-HASH")
    assert "the inventory says 000000000000" in what


def test_a_delegate_that_crashes_takes_no_worker_along(bench: Bench) -> None:
    kind, code, what = bench.refused(bench.spec(fault="crash"))
    assert (kind, code) == ("not_available", "E-DELEGATE-CRASH")
    assert "SIGSEGV" in what
    bench.process.run(bench.job(bench.spec()))


def test_a_model_that_the_delegate_does_not_take(bench: Bench) -> None:
    kind, code, what = bench.refused(bench.spec(fault="old"))
    assert (kind, code) == ("not_available", "E-DELEGATE-APPLY")
    assert "newer than this runtime version" in what


def test_unplugged_between_jobs_and_plugged_in_again(bench: Bench) -> None:
    first = bench.process.run(bench.job(bench.spec()))
    bench.cable.unlink()
    assert bench.refused(bench.spec())[:2] == ("not_available", "E-DELEGATE-DEVICE")
    bench.cable.write_text("")
    again = bench.process.run(bench.job(bench.spec()))
    assert again.outputs[0].blob == first.outputs[0].blob


def test_unplugged_in_the_middle_of_a_job(bench: Bench) -> None:
    job = bench.job(bench.spec(), repeat=200_000_000)
    bench.process.send(op="run", id=99, job=wire.dump(job))
    while not bench.process.progress:
        message = bench.process.read()
        if message["type"] == "progress":
            break
    bench.cable.unlink()
    error = bench.process.message()
    assert (error["type"], error["kind"], error["code"]) == (
        "error",
        "infra_error",
        "E-ACCELERATOR",
    )
    assert "No such device" in error["what"]


def test_an_operator_that_no_runtime_knows(bench: Bench) -> None:
    """Not the delegate's business, with or without one."""
    model = edgetpu.custom(bench.folder / "odd.tflite", "SignalWindow")
    for spec in (wire.RuntimeSpec(bench.runtime), bench.spec()):
        kind, code, what = bench.refused(spec, model)
        assert (kind, code) == ("model_error", "E-MODEL-LOAD")
        assert "unresolved custom op: SignalWindow" in what
