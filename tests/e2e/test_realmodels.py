"""Models that nobody here made, on this machine and, where they are up, on boards over ssh.

Ground truth is what others measured without Assay: the READMEs of $ASSAY_REALMODELS, and beside
them `reference_outputs.npz`, row by row (onnxruntime 1.31.1, tflite-runtime 2.14 with 2 threads, on
x86-64 with VNNI). A board's kernels are emulated, so its numbers are the same on every host.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import farm_trouble
from tests.support.cli import assay
from tests.support.isa import needs_exact
from tests.support.judged import Judged
from tests.support.realmodels import MODELS, classifiers, write

pytestmark = [pytest.mark.realmodels, pytest.mark.timeout(900)]

CLIPS = 960
BOARDS = ("qemu-a72", "qemu-haswell")
REFERENCE = {
    "kws.savedmodel": ("kws_dscnn", "savedmodel_int8"),
    "kws.ref": ("kws_dscnn", "ref_int8"),
    "kws.qdq": ("kws_dscnn", "int8_qdq_onnx"),
    "resnet8.int8": ("cifar10_resnet8", "int8"),
    "resnet8.qdq": ("cifar10_resnet8", "int8_qdq_onnx"),
}
INPUTS = {"kws": "clips", "resnet8": "pictures"}

needs_boards = pytest.mark.farm


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Everything once: this machine and, where the boards are up, two of them."""
    folder = tmp_path_factory.mktemp("real")
    boards = [] if farm_trouble() else list(BOARDS)
    matrix = write(folder, ["host", *boards], **classifiers())
    # Emulation is slow: on the boards only what says something that the rest does not.
    leave_out = (
        "!qemu-*-kws.ref-*",
        "!qemu-haswell-resnet8.qdq-*",
        "!qemu-haswell-resnet8.*-t*214",
    )
    select = [part for glob in leave_out for part in ("--select", glob)]
    ray = {"ASSAY_EXECUTOR": "ray"}
    store = folder / "store"
    done = assay("run", matrix, *select, "--json", store=store, env=ray, timeout=800)
    return Judged(done, store)


def cell(file: str, device: str, runtime: str) -> str:
    return f"{device}-{file}-{INPUTS[file.partition('.')[0]]}-clean-{runtime}"


def scores(ran: Judged, file: str, device: str, runtime: str) -> NDArray[np.float64]:
    """What came back, [samples, classes]; codes of these files' softmax are (q + 128) / 256."""
    found = ran.output(cell(file, device, runtime))
    real = found.astype(np.float64) if found.dtype == np.float32 else (found + 128.0) / 256
    return real.reshape(len(real), -1)


def published(file: str) -> NDArray[np.float64]:
    folder, name = REFERENCE[file]
    with np.load(MODELS / folder / "reference_outputs.npz") as arrays:
        found: NDArray[np.float64] = arrays[name].astype(np.float64)
    return found


def flips(a: NDArray[np.float64], b: NDArray[np.float64]) -> int:
    return int((a.argmax(1) != b.argmax(1)).sum())


def against_fp32(row: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """Right in FP32, right in INT8, flips, right to wrong, wrong to right."""
    fp32 = row["fp32"]
    return (
        fp32["accuracy"]["k"],
        row["accuracy"]["k"],
        fp32["disagreement"]["k"],
        fp32["c_to_i"],
        fp32["i_to_c"],
    )


README = {
    "kws.savedmodel": (882, 884, 16, 6, 8),  # the true pair
    "kws.ref": (882, 895, 43, 13, 26),  # the false one: more right answers, and most flips
    "kws.qdq": (882, 876, 28, 16, 10),
    "resnet8.int8": (439, 440, 11, 4, 5),
    "resnet8.qdq": (439, 441, 11, 2, 4),
}


def needs_tflite214(ran: Judged) -> None:
    if ran.rows["kws.savedmodel@host/tflite214"]["status"] == "not_available":
        pytest.skip("tflite-runtime 2.14 is not available here")


def needs_x86(ran: Judged) -> None:
    if ran.machine("host") != "x86_64":
        pytest.skip("its optimised kernels round otherwise on ARM")


def test_the_false_pair_is_named_and_the_true_ones_are_not_suspected(ran: Judged) -> None:
    verdicts = {file: told["verdict"] for file, told in ran.document["lineage"].items()}
    assert verdicts == {
        "kws.savedmodel": "nearest-step",
        "kws.ref": "unrelated",
        "kws.qdq": "derived",
        "resnet8.int8": "nearest-step",
        "resnet8.qdq": "derived",
    }


@pytest.mark.parametrize("file", ["kws.savedmodel", "kws.ref", "resnet8.int8"])
def test_tflite214_here_gives_the_readmes_counts_and_rows(ran: Judged, file: str) -> None:
    needs_tflite214(ran)
    needs_x86(ran)
    assert against_fp32(ran.rows[f"{file}@host/tflite214"]) == README[file]
    assert (scores(ran, file, "host", "tflite214") == published(file)).all()


@pytest.mark.parametrize("file", ["kws.qdq", "resnet8.qdq"])
@pytest.mark.isa
def test_onnx_runtime_here_gives_the_readmes_counts_and_rows(ran: Judged, file: str) -> None:
    needs_x86(ran)
    needs_exact(ran.isa("host"))  # qemu-haswell's tests say what comes out elsewhere
    assert against_fp32(ran.rows[f"{file}@host/ort"]) == README[file]
    difference = np.abs(scores(ran, file, "host", "ort") - published(file))
    assert difference.max() <= 1e-6  # the softmax is float: its last bits are the CPU's
    assert ran.gate(f"{file}@host/ort", "G7")["verdict"] == "not_applicable"


@pytest.mark.parametrize(
    ("file", "changed"), [("kws.savedmodel", 8), ("kws.ref", 3), ("resnet8.int8", 8)]
)
def test_a_newer_runtime_changes_answers_of_an_unchanged_file(
    ran: Judged, file: str, changed: int
) -> None:
    """LiteRT 2.3 against tflite-runtime 2.14, same bytes in: the README's third finding."""
    assert flips(scores(ran, file, "host", "litert"), published(file)) == changed
    needs_tflite214(ran)
    needs_x86(ran)
    pair = ran.pair(f"{file}@host/litert", f"{file}@host/tflite214")
    assert pair["disagreement"]["k"] == changed
    gate = ran.gate(f"{file}@host/litert", "G7")
    assert gate["verdict"] == "fail"
    assert gate["observed"] > 0.1


def test_sample_sizes_decide_what_may_be_said(ran: Judged) -> None:
    """0 flips of 500 cannot show at most 0.5 %; 0 of 960 can."""
    for id, row in ran.rows.items():
        if row["vs_reference"] and row["vs_reference"]["disagreement"]["k"] == 0:
            expected = "pass" if row["model"] == "kws" else "inconclusive"
            assert ran.gate(id, "G6")["verdict"] == expected, id


@needs_boards
def test_boards_are_compared_and_named(ran: Judged) -> None:
    assert ran.reasons[0] == f"includes emulated devices: {', '.join(BOARDS)}"
    assert ran.document["coverage"]["infra_error"] == 0
    assert {r["device"] for r in ran.rows.values() if r["emulated"]} == set(BOARDS)


@needs_boards
def test_the_true_pair_is_the_same_on_every_board(ran: Judged) -> None:
    for board in BOARDS:
        row = ran.rows[f"kws.savedmodel@{board}/tflite214"]
        assert against_fp32(row) == README["kws.savedmodel"]
        same = scores(ran, "kws.savedmodel", board, "tflite214") == published("kws.savedmodel")
        assert same.all()
        newer = scores(ran, "kws.savedmodel", board, "litert")
        assert flips(newer, published("kws.savedmodel")) == 8


@needs_boards
def test_kws_saturates_on_haswell(ran: Judged) -> None:
    board, truth = scores(ran, "kws.qdq", "qemu-haswell", "ort"), published("kws.qdq")
    assert flips(board, truth) == 11
    assert (board != truth).mean() == pytest.approx(9500 / (CLIPS * 12))
    assert np.abs(board - truth).max() == pytest.approx(0.34218, abs=1e-5)
    # The clips on which this was first measured by hand, without Assay.
    some = slice(None, 192 * 5, 5)
    assert flips(board[some], truth[some]) == 3
    assert (board[some] != truth[some]).mean() == pytest.approx(0.80, abs=0.005)
    row = ran.rows["kws.qdq@qemu-haswell/ort"]
    assert row["accuracy"]["k"] == 882
    assert row["vs_reference"]["disagreement"]["k"] == 11
    # 11 of 960 is over 0.5 %, but not surely so among this many comparisons.
    assert ran.gate(row["id"], "G6")["verdict"] == "inconclusive"
    # Its accuracy rises to FP32's while 11 answers change: why answers are compared, not accuracy.
    assert ran.gate(row["id"], "G3")["verdict"] == "pass"


@needs_boards
def test_on_arm_only_the_float_softmax_differs(ran: Judged) -> None:
    board, truth = scores(ran, "kws.qdq", "qemu-a72", "ort"), published("kws.qdq")
    assert 0 < np.abs(board - truth).max() <= 2.4e-7
    assert flips(board, truth) == 0
    row = ran.rows["kws.qdq@qemu-a72/ort"]
    assert against_fp32(row) == README["kws.qdq"]
    gate = ran.gate(row["id"], "G7")
    assert gate["verdict"] == "not_applicable"
    if not row["is_reference"]:
        assert "no LSB" in gate["reason"]
        assert row["vs_reference"]["max_lsb"] is None


@needs_boards
def test_resnet8_differs_by_plan_between_x86_and_arm(ran: Judged) -> None:
    """ONNX Runtime leaves six of nine convolutions in float on x86, none on ARM."""
    board, truth = scores(ran, "resnet8.qdq", "qemu-a72", "ort"), published("resnet8.qdq")
    assert flips(board, truth) == 0
    assert (board[:100] != truth[:100]).mean() == pytest.approx(0.439)
    assert np.abs(board - truth).max() == pytest.approx(0.0263, abs=1e-4)
    arm = ran.attempts[cell("resnet8.qdq", "qemu-a72", "ort")].result["backend"]
    here = ran.attempts[cell("resnet8.qdq", "host", "ort")].result["backend"]
    needs_x86(ran)
    assert arm["plan_sha256"] != here["plan_sha256"]
    assert sum(arm["nodes"].values()) < sum(here["nodes"].values()) / 2


@needs_boards
def test_resnet8_rounds_otherwise_on_arm_in_the_old_runtime_and_hardly_in_the_new(
    ran: Judged,
) -> None:
    old, truth = scores(ran, "resnet8.int8", "qemu-a72", "tflite214"), published("resnet8.int8")
    assert flips(old, truth) == 5
    assert (old != truth).mean() == pytest.approx(0.117)
    new = {b: scores(ran, "resnet8.int8", b, "litert") for b in BOARDS}
    assert flips(new["qemu-a72"], new["qemu-haswell"]) == 0
    differing = new["qemu-a72"] != new["qemu-haswell"]
    assert 0 < differing.sum() <= 10  # the built-in softmax, one step
    assert np.abs(new["qemu-a72"] - new["qemu-haswell"]).max() == 1 / 256
    for board in BOARDS:
        assert flips(new[board], truth) == 8
