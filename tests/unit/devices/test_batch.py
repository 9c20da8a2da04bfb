"""Batches of small models over a real worker on this machine, in every runtime installed here."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from device_worker import wire
from device_worker.batch import Recipe, Trial, made
from orchestrator.devices.batch import Archive, pack, read, run
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.errors import InfraError
from orchestrator.transports import LocalSettings, open_transport
from tests.support.tiny import MODELS
from tests.unit.device_worker.harness import gemm, two_by_two

ORT = wire.RuntimeSpec("onnxruntime")
U8S8 = (MODELS / "digits_cnn.u8s8.onnx").read_bytes()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceSession]:
    root = tmp_path_factory.mktemp("device")
    transport = open_transport(LocalSettings(root=str(root)), device="d")
    limits = Limits(120, 30)
    with DeviceSession(transport, device="d", owner="o", token=1, limits=limits) as made:
        yield made


def digits(runs: int = 3) -> Recipe:
    return Recipe("random", 0, 16, "float32", [runs, 1, 1, 8, 8], seed=5, scale=2.0**-4)


def test_every_run_feeds_one_entry_as_it_is(opened: DeviceSession, tmp_path: Path) -> None:
    trial = Trial("two", "two.onnx", ["a", "b"])
    a = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    b = np.array([[[1, 2, 3]], [[-4, 5, -6]]], np.int8)
    archive = pack(
        [trial], {"two.onnx": two_by_two(tmp_path / "m.onnx").read_bytes()}, {"a": a, "b": b}
    )
    answer = run(opened, opened.worker(sys.executable), archive, ORT)["two"]
    assert answer.tried.error is None
    total, negative = answer.outputs
    assert np.array_equal(total, a + b)
    assert np.array_equal(negative, -b)
    assert [o.dtype for o in answer.tried.outputs] == ["float32", "int8"]
    assert answer.tried.input_sha256 == [hashlib.sha256(x.tobytes()).hexdigest() for x in (a, b)]


def test_an_input_made_on_the_device_is_the_one_made_here(opened: DeviceSession) -> None:
    archive = pack([Trial("m", "m", ["x"])], {"m": U8S8}, made={"x": digits()})
    answers = run(opened, opened.worker(sys.executable), archive, ORT)
    here = hashlib.sha256(made(digits()).tobytes()).hexdigest()
    assert answers["m"].tried.input_sha256 == [here]
    assert len(archive.data) < len(U8S8) + 2000
    assert answers.environment["runtime"]["name"] == "onnxruntime"
    assert answers["m"].tried.backend is not None


def test_a_graph_that_was_optimised_gives_the_same_bits_as_it_is(opened: DeviceSession) -> None:
    """What the optimiser made is brought, and run again without being optimised once more."""
    worker = opened.worker(sys.executable)
    archive = pack([Trial("m", "m", ["x"], graph=True)], {"m": U8S8}, made={"x": digits()})
    plain = run(opened, worker, archive, ORT)["m"]
    assert plain.graph is not None
    operators = {node.op_type for node in onnx.load_from_string(plain.graph).graph.node}
    assert "QLinearConv" in operators
    again = pack([Trial("m", "m", ["x"])], {"m": plain.graph}, made={"x": digits()})
    as_it_is = wire.RuntimeSpec("onnxruntime", optimise=False)
    assert np.array_equal(run(opened, worker, again, as_it_is)["m"].outputs[0], plain.outputs[0])
    # The flag does reach the runtime: the file itself keeps its outer operators without it.
    kept = run(opened, worker, archive, as_it_is)["m"].graph
    assert kept is not None
    assert "QLinearConv" not in {n.op_type for n in onnx.load_from_string(kept).graph.node}


@pytest.mark.parametrize("kernels", ["default", "reference"])
def test_tflite_models_have_scales_and_no_graph(opened: DeviceSession, kernels: str) -> None:
    model = (MODELS / "digits_cnn.int8.tflite").read_bytes()
    x = Recipe("ramp", -128, 127, "int8", [2, 1, 8, 8, 1])
    archive = pack([Trial("m", "m", ["x"], graph=True)], {"m": model}, made={"x": x})
    answer = run(
        opened, opened.worker(sys.executable), archive, wire.RuntimeSpec("litert", kernels=kernels)
    )["m"]
    assert answer.graph is None
    assert answer.outputs[0].shape == (2, 1, 10)
    assert answer.tried.outputs[0].dtype == "int8"
    assert (answer.tried.outputs[0].scale or 0) > 0


def test_one_that_fails_keeps_nobody_from_being_tried(
    opened: DeviceSession, tmp_path: Path
) -> None:
    float_model = gemm(tmp_path / "gemm.onnx").read_bytes()
    x = {"x": np.ones((1, 1, 4), np.float32), "wrong": np.ones((1, 1, 5), np.float32)}
    x["two"] = np.ones((2, 1, 4), np.float64)
    trials = [
        Trial("broken", "broken", ["x"]),
        Trial("misfit", "gemm", ["wrong"]),
        Trial("dtype", "gemm", ["two"]),
        Trial("too many", "gemm", ["x", "x"]),
        Trial("right", "gemm", ["x"]),
    ]
    archive = pack(trials, {"broken": b"no model", "gemm": float_model}, x)
    answers = run(opened, opened.worker(sys.executable), archive, ORT)
    errors = {a.tried.name: (a.tried.error or {}).get("code") for a in answers.trials}
    assert errors == {
        "broken": "E-MODEL-LOAD",
        "misfit": "E-MODEL-INPUT",
        "dtype": "E-MODEL-INPUT",
        "too many": "E-MODEL-INPUT",
        "right": None,
    }
    assert answers["right"].outputs[0].tolist() == [[[18.0, 22.0, 26.0]]]
    assert answers["broken"].outputs == ()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plan: plan.update(trials=[{"name": "m", "model": "nowhere", "inputs": []}]),
        lambda plan: plan["trials"][0].update(inputs=["nowhere"]),
        lambda plan: plan["made"]["x"].update(kind="dice"),
        lambda plan: plan["made"]["x"].update(dtype="no such"),
        lambda plan: plan["made"]["x"].update(shape=[-1]),
        lambda plan: plan.update(trials=[{"unknown": 1}]),
    ],
)
def test_an_archive_that_is_none_is_refused_whole(opened: DeviceSession, spoil: object) -> None:
    assert callable(spoil)
    whole = pack([Trial("m", "m", ["x"])], {"m": U8S8}, made={"x": digits()})
    with zipfile.ZipFile(io.BytesIO(whole.data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    plan = json.loads(members["trials.json"])
    spoil(plan)
    members["trials.json"] = json.dumps(plan).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(InfraError, match=r"E-INPUT-FORMAT|E-WIRE"):
        run(opened, opened.worker(sys.executable), Archive(buffer.getvalue()), ORT)


def test_no_zip_is_refused(opened: DeviceSession) -> None:
    with pytest.raises(InfraError, match="E-INPUT-FORMAT"):
        run(opened, opened.worker(sys.executable), Archive(b"no zip"), ORT)


def test_equal_contents_are_one_archive(tmp_path: Path) -> None:
    def packed() -> Archive:
        return pack([Trial("m", "m", ["x"])], {"m": U8S8}, {"x": np.ones(3, np.float32)})

    assert packed() == packed()
    with pytest.raises(ValueError, match="not there"):
        pack([Trial("m", "other", ["x"])], {"m": U8S8}, {"x": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match="must differ"):
        pack([Trial("m", "m", ["m"])], {"m": U8S8}, {"m": np.ones(3, np.float32)})


def test_answers_that_changed_on_their_way_are_garbage(
    opened: DeviceSession, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3, np.int8))
    output = {"name": "y", "dtype": "int8", "shape": [3], "sha256": "0" * 64}
    tried = [{"name": "m", "outputs": [output]}]
    with zipfile.ZipFile(tmp_path / "answers", "w") as archive:
        archive.writestr("tried.json", json.dumps(tried))
        archive.writestr("0/output-0.npy", buffer.getvalue())
    file = wire.DeviceFile("answers.zip", wire.Blob("0" * 64, 1))
    with pytest.raises(InfraError, match="another hash"):
        read(tmp_path / "answers", wire.BatchResult("a", file, {}, "0" * 64, 1))


def answered(path: Path, members: list[tuple[str, bytes]]) -> None:
    """Read a batch's answers that the device has made up. Raises as `read`."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of two members with one name
        for name, data in members:
            archive.writestr(name, data)
    file = wire.DeviceFile("answers.zip", wire.Blob("0" * 64, 1))
    read(path, wire.BatchResult("a", file, {}, "0" * 64, 1))


def claiming(shape: str) -> bytes:
    text = f"{{'descr': '|i1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(3)


TRIED_ONE = json.dumps(
    [{"name": "m", "outputs": [{"name": "y", "dtype": "int8", "shape": [3], "sha256": "0" * 64}]}]
).encode()
ANSWERS: dict[str, list[tuple[str, bytes]]] = {
    "none": [],
    "no output": [("tried.json", TRIED_ONE)],
    "twice": [("tried.json", TRIED_ONE), ("tried.json", b"[]")],
    "bomb": [("tried.json", b"[]"), ("0", bytes(1 << 20)), ("1", bytes(1 << 20))],
    "a long document": [("tried.json", b" " * (1 << 20) + b"[]")],
    "deep": [("tried.json", b"[" * 1_000_000)],
    "no list": [("tried.json", b"{}")],
    "more than a list": [("tried.json", b'[],"x":[]}')],
    "numbers": [("tried.json", b"[1e999]")],
    "tebibytes": [("tried.json", TRIED_ONE), ("0/output-0.npy", claiming("(8000000000000,)"))],
    "overflow": [("tried.json", TRIED_ONE), ("0/output-0.npy", claiming("(4294967296,) * 2"))],
    "another shape": [("tried.json", TRIED_ONE), ("0/output-0.npy", claiming("(1, 3)"))],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_were_made_up_take_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # Bounds that a small archive goes beyond: what a large one would take is the same code.
    monkeypatch.setattr("orchestrator.devices.batch.UNPACKED_LIMIT", 2_000_000)
    monkeypatch.setattr("orchestrator.devices.batch.DOCUMENT_LIMIT", 1_000_000)
    with pytest.raises(InfraError, match=r"E-WORKER-GARBAGE|E-RESULT-") as refusal:
        answered(tmp_path / "answers", ANSWERS[name])
    assert len(str(refusal.value)) < 400


def test_answers_whose_zip_is_damaged_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with pytest.raises(InfraError, match="another hash"):
        answered(path, [("tried.json", TRIED_ONE), ("0/output-0.npy", claiming("(3,)"))])
    whole = path.read_bytes()
    file = wire.DeviceFile("answers.zip", wire.Blob("0" * 64, 1))
    for bit in range(0, len(whole) * 8, 7):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(data))
        with pytest.raises(InfraError):
            read(path, wire.BatchResult("a", file, {}, "0" * 64, 1))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_recipes(dtype: str) -> None:
    low, high = (0, 200) if dtype == "uint8" else (-100, 100)
    x = made(Recipe("random", low, high, dtype, [1000], seed=1, scale=0.5))
    assert str(x.dtype) == dtype
    bounds = (low, high) if x.dtype.kind != "f" else (low / 2, high / 2)
    assert bounds[0] <= x.min() < x.max() <= bounds[1]
    ramp = made(Recipe("ramp", -2, 1, "int32", [3, 3]))
    assert ramp.tolist() == [[-2, -1, 0], [1, -2, -1], [0, 1, -2]]


def test_the_random_stream_is_the_frozen_one() -> None:
    """Another NumPy on the device must make the same input: these are NEP 19's numbers for ever."""
    x = made(Recipe("random", -128, 127, "int8", [8], seed=7))
    assert x.tolist() == [47, 68, -103, 118, -61, 83, 23, -25]
