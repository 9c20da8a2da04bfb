"""Fingerprints of the virtual boards: the arithmetic that was measured there without Assay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from device_worker.wire import RuntimeSpec
from orchestrator.cli.options import inventory_of
from orchestrator.coordinator.reservations import Reservations
from orchestrator.coordinator.visit import visit
from orchestrator.devices.batch import run
from orchestrator.fingerprint.pack import archive, probes
from tests.support.cli import REPO, Done, assay

pytestmark = [pytest.mark.farm, pytest.mark.timeout(600)]

INVENTORY = REPO / "matrices" / "inventories" / "lab.yaml"
BOARDS = ("qemu-a53", "qemu-a72", "qemu-haswell", "qemu-badboard")
CONFIGURATIONS = ("onnxruntime", "litert/default", "litert/builtin")
ARM = ("qemu-a53", "qemu-a72")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    wanted = [option for name in CONFIGURATIONS for option in ("--runtime", name)]
    store = tmp_path_factory.mktemp("boards") / "store"
    return assay(
        "fingerprint", *BOARDS, *wanted, "-i", str(INVENTORY), "--json", store=store, timeout=500
    )


def families(done: Done, board: str, configuration: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        taken["fingerprint"]["families"]
        for taken in done.json["taken"]
        if (taken["device"], taken["configuration"]) == (board, configuration)
    )
    return found


def mode(done: Done, board: str, configuration: str, family: str) -> str:
    return str(families(done, board, configuration)[family]["mode"])


def split(done: Done, configuration: str, board: str) -> dict[str, Any] | None:
    """How the board's class differs from that of the a53, None when it does not."""
    return next(
        (s for s in done.json["splits"] if (s["configuration"], s["a"]) == (configuration, board)),
        None,
    )


def test_every_board_answers(done: Done) -> None:
    assert done.code == 0, done.err
    assert all(taken["error"] is None for taken in done.json["taken"])


def test_kernel_sets_of_one_process_leave_each_other_alone(tmp_path: Path) -> None:
    """A worker serves one runtime, but all of its kernel sets.

    XNNPACK flushes denormals, the reference kernels keep them: also when it has been in the process
    before them.
    """
    device = inventory_of([INVENTORY]).device("qemu-a53")
    asked = archive(tuple(p for p in probes("tflite") if "float32" in p.name))
    with Reservations(tmp_path) as reservations, visit(device, reservations) as there:
        worker = there.fresh("litert")
        before, between, after = (
            run(there.session, worker, asked, RuntimeSpec("litert", kernels=kernels))
            for kernels in ("reference", "default", "reference")
        )
    kept, flushed = (x["tflite.add.float32.denormal"].outputs[0] for x in (before, between))
    assert kept.any()
    assert not flushed.any()
    told = [
        {a.tried.name: [o.sha256 for o in a.tried.outputs] for a in answers.trials}
        for answers in (before, after)
    ]
    assert told[0] == told[1]


def test_what_was_asked_before_does_not_change_an_answer(done: Done, tmp_path: Path) -> None:
    """XNNPACK on ARM leaves its process flushing denormals; ONNX Runtime then would as well."""
    later = ("--runtime", "litert/default", "--runtime", "onnxruntime")
    again = assay(
        "fingerprint",
        "qemu-a72",
        *later,
        "-i",
        str(INVENTORY),
        "--json",
        store=tmp_path / "store",
        timeout=500,
    )
    for configuration in ("onnxruntime", "litert/default"):
        assert families(again, "qemu-a72", configuration) == families(
            done, "qemu-a72", configuration
        )
    assert mode(again, "qemu-a72", "onnxruntime", "denormals") == "kept"
    assert mode(again, "qemu-a72", "litert/default", "denormals") == "flushed to zero"


@pytest.mark.parametrize(
    ("board", "conv", "depthwise", "mul"),
    [
        ("qemu-haswell", "half-even", "double", "half-even"),
        ("qemu-a53", "rndnu16", "double-up", "half-up"),
        ("qemu-a72", "half-up", "double-up", "half-up"),
    ],
)
def test_xnnpack_rounds_unsigned_bytes_by_core(
    done: Done, board: str, conv: str, depthwise: str, mul: str
) -> None:
    default = "litert/default"
    assert mode(done, board, default, "CONV_2D uint8 per-tensor") == conv
    assert mode(done, board, default, "FULLY_CONNECTED uint8 per-tensor") == conv
    assert mode(done, board, default, "DEPTHWISE_CONV_2D uint8 per-tensor") == depthwise
    assert mode(done, board, default, "MUL uint8") == mul
    assert mode(done, board, default, "ADD int8") == "half-up"
    for family in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        assert mode(done, board, default, f"{family} int8 per-channel") == "half-even"


@pytest.mark.parametrize("board", ARM)
def test_without_xnnpack_arm_rounds_once_and_a_single_row_twice(done: Done, board: str) -> None:
    builtin = "litert/builtin"
    assert mode(done, board, builtin, "CONV_2D int8 per-channel") == "half-up"
    assert mode(done, board, builtin, "FULLY_CONNECTED int8 per-tensor") == "half-up"
    assert mode(done, board, builtin, "FULLY_CONNECTED int8 per-tensor batch 1") == "double-up"
    assert mode(done, "qemu-haswell", builtin, "CONV_2D int8 per-channel") == "double-up"


def test_the_two_arm_cores_part_by_the_rounding_of_unsigned_bytes_alone(done: Done) -> None:
    found = split(done, "litert/default", "qemu-a72")
    assert found is not None
    assert found["words"].startswith("half-up instead of rndnu16 in uint8 (")
    assert all(" uint8 " in family for family in found["families"])
    assert split(done, "litert/builtin", "qemu-a72") is None
    assert split(done, "onnxruntime", "qemu-a72") is None


def test_haswell_saturates_and_says_where(done: Done) -> None:
    found = families(done, "qemu-haswell", "onnxruntime")
    saturated = {name for name, family in found.items() if family["mode"].startswith("saturates")}
    assert {"MatMulInteger U8S8", "QLinearConv U8S8 per-channel"} <= saturated
    assert "QDQ Conv float ends S8S8 per-channel" in saturated
    assert not any("U8U8" in name for name in saturated)
    assert "QLinearConv S8S8 per-channel" not in saturated
    words = split(done, "onnxruntime", "qemu-haswell")
    assert words is not None
    assert words["words"].startswith("saturates U8S8 (")


def test_the_plan_of_a_residual_net_is_float_on_x86_alone(done: Done) -> None:
    net = "plan of a residual net int8"
    assert families(done, "qemu-a53", "onnxruntime")[net]["plan"] == "all in integers"
    plan = families(done, "qemu-haswell", "onnxruntime")[net]["plan"]
    assert plan == "1 of 1 Add, 2 of 3 Conv in float"


def test_ties_of_sums_go_away_from_zero_on_arm(done: Done) -> None:
    for dtype in ("int8", "uint8"):
        for board in ARM:
            assert mode(done, board, "onnxruntime", f"QLinearAdd {dtype}") == "half-away"
        assert mode(done, "qemu-haswell", "onnxruntime", f"QLinearAdd {dtype}") == "half-even"


def test_softmax_parts_arm_from_x86(done: Done) -> None:
    for dtype in ("int8", "uint8"):
        assert mode(done, "qemu-haswell", "litert/default", f"SOFTMAX {dtype}") == "exact"
        modes = {mode(done, board, "litert/default", f"SOFTMAX {dtype}") for board in ARM}
        assert len(modes) == 1
        assert modes.pop().startswith("unmatched:")


def test_a_board_that_computes_wrongly_fits_no_mode(done: Done) -> None:
    found = mode(done, "qemu-badboard", "litert/default", "CONV_2D int8 per-channel")
    assert "unmatched:" in found
    words = split(done, "litert/default", "qemu-badboard")
    assert words is not None
    assert "CONV_2D int8 per-channel" in words["families"]
