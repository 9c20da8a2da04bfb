"""The plan hash, against graphs that the real protobuf library wrote."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from device_worker.runtimes.plan import read_plan
from tests.unit.device_worker.harness import QUICKSTART, two_by_two

MODEL = QUICKSTART / "models" / "digits_ds.u8s8.onnx"


def changed(path: Path, **edits: object) -> Path:
    model = onnx.load(str(MODEL))
    for name in edits:
        if name == "order":
            constants = list(model.graph.initializer)[::-1]
            del model.graph.initializer[:]
            model.graph.initializer.extend(constants)
        elif name == "names":
            model.producer_name = "someone else"
            model.doc_string = "2026"
            for node in model.graph.node:
                node.name = ""
                node.doc_string = "x"
        elif name == "attribute":
            conv = next(node for node in model.graph.node if node.op_type == "Conv")
            next(a for a in conv.attribute if a.name == "group").i += 1
        elif name == "wiring":
            model.graph.node[-1].input[0] += "x"
        elif name == "operator":
            model.graph.node[-1].op_type = "Relu"
        elif name == "constant":
            constant = next(item for item in model.graph.initializer if item.raw_data)
            constant.raw_data = bytes([constant.raw_data[0] ^ 1]) + constant.raw_data[1:]
    onnx.save(model, str(path))
    return path


def test_operators_are_those_that_the_onnx_package_reads() -> None:
    nodes = onnx.load(str(MODEL)).graph.node
    plan = read_plan(str(MODEL))
    assert sum(plan.operators.values()) == len(nodes)
    for kind in {node.op_type for node in nodes}:
        assert plan.operators[kind] == sum(node.op_type == kind for node in nodes)


@pytest.mark.parametrize("edit", ["order", "names"])
def test_order_of_writing_names_and_dates_do_not_matter(tmp_path: Path, edit: str) -> None:
    other = changed(tmp_path / "m.onnx", **{edit: True})
    assert other.read_bytes() != MODEL.read_bytes()
    assert read_plan(str(other)) == read_plan(str(MODEL))


@pytest.mark.parametrize("edit", ["attribute", "wiring", "operator", "constant"])
def test_what_is_computed_matters(tmp_path: Path, edit: str) -> None:
    other = changed(tmp_path / "m.onnx", **{edit: True})
    assert read_plan(str(other)).sha256 != read_plan(str(MODEL)).sha256


@pytest.mark.parametrize("cut", [0, 1, 7, 100, -1])
def test_truncated_files_are_refused(tmp_path: Path, cut: int) -> None:
    path = two_by_two(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError):
        read_plan(str(path))


def test_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError):
        read_plan(str(tmp_path / "m"))
