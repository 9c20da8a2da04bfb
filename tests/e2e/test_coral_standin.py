"""`assay run` on a Coral that is not one: a real plug-in stands in for libedgetpu, and says so.

What is shown is the way to an accelerator and back. Its answers are the stand-in's own, so no
number of these runs says anything of an Edge TPU.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from infra.bundles.build import ensure
from tests.conftest import farm_trouble
from tests.support import edgetpu
from tests.support.cli import assay
from tests.support.judged import Judged
from tests.support.realmodels import INVENTORY, MODELS, write

SAMPLES = 20
PETS = 12
BOARD = "qemu-a76"
CORAL = MODELS / "coral_mobilenet_v1_025_128"


class Lab:
    """A matrix, an inventory with one stand-in Coral and a plain unit; plain data to be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        folder.mkdir(parents=True, exist_ok=True)
        self.cable = folder / "cable"
        self.cable.write_text("")
        delegate = {
            "library": str(edgetpu.library()),
            "options": {"device": "usb", "state": str(self.cable)},
        }
        self.coral = self.unit("coral", "standin-edgetpu", delegates={"edgetpu": delegate})
        self.devices = [self.coral, self.unit("plain", "bench")]
        np.save(folder / "x.npy", edgetpu.codes(SAMPLES))
        edgetpu.source(folder / "net.tflite")
        edgetpu.compiled(folder / "net_edgetpu.tflite")
        self.matrix: dict[str, Any] = {
            "version": 1,
            "name": "coral",
            "inventory": "inventory.yaml",
            "models": [
                {
                    "name": "net",
                    "task": {"type": "classification"},
                    "inputs": "codes",
                    "files": [
                        {"name": "cpu", "path": "net.tflite"},
                        {"name": "tpu", "path": "net_edgetpu.tflite", "compiled_from": "cpu"},
                    ],
                }
            ],
            "inputs": [{"name": "codes", "type": "npy", "path": "x.npy"}],
            "devices": [{"name": "*"}],
            "runtimes": [
                {"name": "litert", "runtime": "litert"},
                {"name": "coral", "runtime": "litert", "delegate": "edgetpu", "files": "tpu"},
            ],
        }

    def unit(self, name: str, class_: str, **fields: Any) -> dict[str, Any]:
        return {
            "name": name,
            "class": class_,
            "transport": {"type": "local", "root": str(self.folder / "devices" / name)},
            "python": {"default": sys.executable},
            **fields,
        }

    def write(self) -> Path:
        inventory = {"version": 1, "devices": self.devices}
        (self.folder / "inventory.yaml").write_text(yaml.safe_dump(inventory))
        path = self.folder / "matrix.yaml"
        path.write_text(yaml.safe_dump(self.matrix, sort_keys=False))
        return path

    def run(self, *flags: str) -> Judged:
        return Judged(assay("run", self.write(), "--json", *flags, store=self.store), self.store)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "lab")


def outcomes(ran: Judged) -> dict[str, tuple[str, str | None]]:
    """Cell -> outcome and error ID of its last attempt."""
    last = sorted(ran.document["attempts"], key=lambda a: a["number"])
    return {a["cell"]: (a["outcome"], a["error_id"]) for a in last}


def test_a_compiled_file_runs_where_the_delegate_is_and_is_diagnosed_elsewhere(lab: Lab) -> None:
    ran = lab.run()
    assert outcomes(ran) == {
        "coral-net.cpu-codes-clean-litert": ("ok", None),
        "coral-net.tpu-codes-clean-litert": ("not_available", "E-DELEGATE-NEEDED"),
        "coral-net.tpu-codes-clean-coral": ("ok", None),
        "plain-net.cpu-codes-clean-litert": ("ok", None),
        "plain-net.tpu-codes-clean-litert": ("not_available", "E-DELEGATE-NEEDED"),
        "plain-net.tpu-codes-clean-coral": ("not_available", "E-DELEGATE-LIBRARY"),
    }
    sha256 = hashlib.sha256((lab.folder / "net.tflite").read_bytes()).hexdigest()
    assert ran.document["compiled"] == {
        "net.tpu": {
            "partitions": 1,
            "bytes": len(edgetpu.PROGRAM),
            "cpu": {"DEQUANTIZE": 1},
            "source": "cpu",
            "source_sha256": sha256,
            "text": "Edge TPU: 1 partition, 1 operator on the CPU: DEQUANTIZE ×1; "
            f"compiled from cpu (sha256 {sha256[:12]})",
        }
    }
    row = ran.rows["net.tpu@coral/coral"]
    assert (row["emulated"], row["device_class"]) == (True, "standin-edgetpu")
    attempt = ran.attempts["coral-net.tpu-codes-clean-coral"]
    assert attempt.environment["delegate"]["standin"] == "standin-edgetpu"
    assert attempt.result["backend"]["nodes"]["edgetpu"] == 1
    report = Path(assay("report", store=lab.store).out.strip()).read_text()
    assert "<strong>net.tpu</strong>: Edge TPU: 1 partition" in report


def test_people_are_told_as_well(lab: Lab) -> None:
    """And a note says when an accelerator was given a file that has nothing for it."""
    lab.matrix["runtimes"] = [{"name": "coral", "runtime": "litert", "delegate": "edgetpu"}]
    done = assay("run", lab.write(), "--select", "coral-*", store=lab.store)
    assert "net.tpu: Edge TPU: 1 partition, 1 operator on the CPU: DEQUANTIZE ×1" in done.out
    assert "asked for edgetpu, it was given no operator" in done.out


def test_unplugged_the_run_still_completes_with_the_reason(lab: Lab) -> None:
    lab.cable.unlink()
    ran = lab.run("--select", "coral-*")
    assert outcomes(ran) == {
        "coral-net.cpu-codes-clean-litert": ("ok", None),
        "coral-net.tpu-codes-clean-litert": ("not_available", "E-DELEGATE-NEEDED"),
        "coral-net.tpu-codes-clean-coral": ("not_available", "E-DELEGATE-DEVICE"),
    }


def test_a_delegate_for_another_machine_is_one_line(lab: Lab) -> None:
    elf = bytearray(edgetpu.library().read_bytes())
    elf[4] = 3 - elf[4]  # a 32-bit library here, a 64-bit one there
    other = lab.folder / "libother.so"
    other.write_bytes(elf)
    lab.coral["delegates"]["edgetpu"]["library"] = str(other)
    ran = lab.run("--select", "coral-net.tpu-codes-clean-coral")
    (attempt,) = ran.document["attempts"]
    assert (attempt["outcome"], attempt["error_id"]) == ("not_available", "E-DELEGATE-LIBRARY")
    assert "wrong ELF class" in attempt["error"]
    assert f"install a build of it for this machine ({os.uname().machine})" in attempt["error"]
    assert ran.done.code == 5


def test_a_file_that_was_not_compiled_from_its_source_is_refused(lab: Lab) -> None:
    edgetpu.compiled(lab.folder / "net_edgetpu.tflite", scale=0.25)
    done = assay("run", lab.write(), store=lab.store)
    done.refused(2, "E-MODEL-COMPILED", "net_edgetpu.tflite", "scale 0.25", "scale 0.5")


@pytest.mark.farm
def test_a_delegate_that_is_no_library_on_a_board(lab: Lab) -> None:
    """load_delegate on ARM, as far as a board gets without an Edge TPU's library for it."""
    farm = yaml.safe_load(INVENTORY.read_text())["devices"]
    board = next(device for device in farm if device["name"] == BOARD)
    board["delegates"] = {"edgetpu": {"library": "/etc/passwd"}}
    lab.devices = [board]
    lab.matrix["runtimes"] = [
        {"name": name, "runtime": name, "delegate": "edgetpu"}
        for name in ("litert", "tflite-runtime")
    ]
    ran = lab.run("--select", f"{BOARD}-net.tpu-*")
    found = outcomes(ran)
    assert set(found.values()) == {("not_available", "E-DELEGATE-LIBRARY")}
    assert len(found) == 2
    for attempt in ran.document["attempts"]:
        if attempt["outcome"] == "infra_error":
            continue  # the board was held by somebody else for a moment
        assert "edgetpu cannot be loaded: invalid ELF header" in attempt["error"]
        assert "(aarch64)" in attempt["error"]


@pytest.mark.realmodels
@pytest.mark.timeout(600)
def test_the_cpu_file_runs_here_and_on_a_board_and_the_compiled_one_is_diagnosed(
    tmp_path: Path,
) -> None:
    boards = [] if farm_trouble() else [BOARD]
    ran = Judged(
        assay("run", pets(tmp_path, boards), "--json", store=tmp_path / "s"), tmp_path / "s"
    )
    found = outcomes(ran)
    for device in ("host", *boards):
        needed = found[f"{device}-mobilenet.tpu-pets-clean-tflite214"]
        if needed == ("not_available", "E-RUNTIME-MISSING"):
            pytest.skip("tflite-runtime 2.14 is not available here")
        assert needed == ("not_available", "E-DELEGATE-NEEDED")
        assert found[f"{device}-mobilenet.cpu-pets-clean-tflite214"] == ("ok", None)
    with np.load(CORAL / "reference_outputs.npz") as arrays:
        truth = arrays["quant_uint8"][:PETS]
    here = ran.output("host-mobilenet.cpu-pets-clean-tflite214").reshape(PETS, -1)
    assert (here.argmax(1) == truth.argmax(1)).all()
    if os.uname().machine == "x86_64":
        assert (here == truth).all()
    assert (
        "compiled from cpu (sha256 cb273c23ee76)"
        in ran.document["compiled"]["mobilenet.tpu"]["text"]
    )


@pytest.mark.realmodels
@pytest.mark.phone
@pytest.mark.timeout(600)
def test_the_phone_runs_the_cpu_file_bit_for_bit_and_says_what_the_other_needs(
    tmp_path: Path,
) -> None:
    ensure("aarch64-litert")
    matrix = pets(
        tmp_path,
        ["qemu-phone"],
        runtimes=[{"name": "litert", "runtime": "litert", "threads": 2}],
    )
    ran = Judged(assay("run", matrix, "--json", store=tmp_path / "s", timeout=500), tmp_path / "s")
    found = outcomes(ran)
    for device in ("host", "qemu-phone"):
        assert found[f"{device}-mobilenet.cpu-pets-clean-litert"] == ("ok", None)
        needed = found[f"{device}-mobilenet.tpu-pets-clean-litert"]
        assert needed == ("not_available", "E-DELEGATE-NEEDED")
    here, there = (
        ran.output(f"{device}-mobilenet.cpu-pets-clean-litert") for device in ("host", "qemu-phone")
    )
    assert (here == there).all()


def pets(folder: Path, boards: list[str], **parts: Any) -> Path:
    files = [
        {"name": "cpu", "path": str(CORAL / "mobilenet_v1_0.25_128_quant.tflite")},
        {
            "name": "tpu",
            "path": str(CORAL / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"),
            "compiled_from": "cpu",
        },
    ]
    model = {
        "name": "mobilenet",
        "task": {"type": "classification"},
        "inputs": "pets",
        "files": files,
    }
    images = {"name": "pets", "type": "npz", "path": str(CORAL / "eval_images_128.npz")}
    return write(
        folder,
        ["host", *boards],
        **{
            "models": [model],
            "inputs": [{**images, "array": "images", "labels": "labels", "limit": PETS}],
            "runtimes": [{"name": "tflite214", "runtime": "tflite-runtime", "threads": 2}],
            "policy": None,
            **parts,
        },
    )


@pytest.mark.realmodels
@pytest.mark.timeout(300)
def test_the_real_mobilenet_and_its_compiled_twin(lab: Lab) -> None:
    """The CPU file's answers are the README's; the compiled file's are the stand-in's own."""
    lab.matrix["models"] = [
        {
            "name": "mobilenet",
            "task": {"type": "classification"},
            "inputs": "pets",
            "files": [
                {"name": "cpu", "path": str(CORAL / "mobilenet_v1_0.25_128_quant.tflite")},
                {
                    "name": "tpu",
                    "path": str(CORAL / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"),
                    "compiled_from": "cpu",
                },
            ],
        },
        {
            "name": "faces",
            "task": {"type": "classification"},
            "inputs": "pets",
            "files": [
                {"name": "tpu", "path": str(CORAL / "face_detector_quantized_edgetpu.tflite")}
            ],
        },
    ]
    lab.matrix["inputs"] = [
        {
            "name": "pets",
            "type": "npz",
            "path": str(CORAL / "eval_images_128.npz"),
            "array": "images",
        }
    ]
    ran = lab.run("--select", "coral-*", "--select", "plain-*")
    found = outcomes(ran)
    assert found["plain-mobilenet.cpu-pets-clean-litert"] == ("ok", None)
    assert found["coral-mobilenet.tpu-pets-clean-coral"] == ("ok", None)
    assert found["coral-faces.tpu-pets-clean-coral"] == ("ok", None)
    for device in ("coral", "plain"):
        needed = ("not_available", "E-DELEGATE-NEEDED")
        assert found[f"{device}-mobilenet.tpu-pets-clean-litert"] == needed
        assert found[f"{device}-faces.tpu-pets-clean-litert"] == needed
    texts = {file: facts["text"] for file, facts in ran.document["compiled"].items()}
    assert texts == {
        "faces.tpu": "Edge TPU: 1 partition, 2 operators on the CPU: DEQUANTIZE ×2; "
        "its source model is not named",
        "mobilenet.tpu": "Edge TPU: 1 partition, 0 operators on the CPU; "
        "compiled from cpu (sha256 cb273c23ee76)",
    }
    same = ran.output("plain-mobilenet.cpu-pets-clean-litert")
    assert (same == ran.output("coral-mobilenet.cpu-pets-clean-litert")).all()
    with np.load(CORAL / "reference_outputs.npz") as arrays:
        truth = arrays["quant_uint8"]  # tflite-runtime 2.14; the newer kernels round otherwise
    assert (same.argmax(1) == truth.argmax(1)).mean() > 0.95
