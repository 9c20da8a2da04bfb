from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import InputError
from orchestrator.matrix.model import CsvInputs, ImageInputs, NpyInputs, NpzInputs
from orchestrator.matrix.plan import expand
from orchestrator.matrix.work import count_samples, npy_shape, total_work
from tests.unit.matrix.build import inventory, matrix


@pytest.mark.parametrize("shape", [(7,), (7, 3), (0, 3), (7, 1, 2, 3)])
@pytest.mark.parametrize("dtype", ["<f4", ">i8", "u1", "<U5"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_shapes_equal_numpys(shape: tuple[int, ...], dtype: str, version: tuple[int, int]) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros(shape, dtype), version=version)
    file.seek(0)
    assert npy_shape(file, "f") == shape


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"not numpy at all",
        b"\x93NUMPY\x01\x00\x05\x00{'a'}",
        b"\x93NUMPY\x01\x00\x10\x00{'shape': 'many'}",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        b"\x93NUMPY\x01\x00\x0f\x00{'shape': ()}   ",
    ],
)
def test_what_is_no_array(content: bytes) -> None:
    with pytest.raises(InputError) as caught:
        npy_shape(io.BytesIO(content), "f")
    assert (caught.value.id, caught.value.where) == ("E-INPUT-UNREADABLE", "f")


def test_counting_each_kind(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((12, 3)), big=np.zeros((4000, 9)))
    npz = NpzInputs(name="a", type="npz", path=tmp_path / "a.npz", array="x")
    assert count_samples(npz) == 12
    assert count_samples(npz.model_copy(update={"limit": 5})) == 5
    assert count_samples(npz.model_copy(update={"limit": 50})) == 12
    np.save(tmp_path / "b.npy", np.zeros((6, 3)))
    assert count_samples(NpyInputs(name="b", type="npy", path=tmp_path / "b.npy")) == 6
    (tmp_path / "c.csv").write_text('a,b\n1,2\n\n"x\ny",4\n')
    assert count_samples(CsvInputs(name="c", type="csv", path=tmp_path / "c.csv")) == 2
    for name in ("one/2.png", "one/1.JPG", "two/3.ppm", "two/notes.txt"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).touch()
    folder = ImageInputs(
        name="d", type="images", path=tmp_path / "d", size=(1, 1), class_folders=True
    )
    assert count_samples(folder) == 3
    listed = folder.model_copy(update={"class_folders": False, "labels": tmp_path / "c.csv"})
    assert count_samples(listed) == 2


def test_a_missing_array_lists_those_that_exist(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=np.zeros(3), two=np.zeros(3))
    with pytest.raises(InputError, match="it has one, two") as caught:
        count_samples(NpzInputs(name="a", type="npz", path=tmp_path / "a.npz"))
    assert caught.value.id == "E-INPUT-ARRAY"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated"])
def test_a_truncated_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError) as caught:
        count_samples(NpzInputs(name="a", type="npz", path=tmp_path / "a.npz"))
    assert caught.value.id == "E-INPUT-UNREADABLE"


def test_total_work_is_samples_times_repeats(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.zeros((20, 2)))
    spec = {"name": "set", "type": "npz", "path": str(tmp_path / "set.npz")}
    m = matrix(("inputs", [spec]), ("devices", [{"name": "h"}]))
    cells = expand(m, inventory(("h", "pc", []))).cells
    work = total_work(m, cells)
    assert work.samples == {"set": 20}
    assert work.inferences == {
        "h-net.q-set-clean-ort": 20,
        "h-net.q-set-repeat:10-ort": 80,
        "h-net.i-set-clean-lite": 20,
        "h-net.i-set-repeat:10-lite": 80,
    }
    assert work.total == 200
    few = matrix(("inputs", [spec | {"limit": 3}]), ("devices", [{"name": "h"}]))
    assert total_work(few, cells[:2]).total == 3 + 30


def test_of_a_soak_only_its_first_pass_is_known(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.zeros((20, 2)))
    spec = {"name": "set", "type": "npz", "path": str(tmp_path / "set.npz")}
    conditions = ["soak:75C", "power:save", "order:1"]
    m = matrix(("inputs", [spec]), ("devices", [{"name": "h"}]), ("conditions", conditions))
    found = total_work(m, expand(m, inventory(("h", "pc", []))).cells).inferences
    assert found["h-net.q-set-soak:75C-ort"] == 8
    assert found["h-net.q-set-power:save-ort"] == 20
    assert found["h-net.q-set-order:1-ort"] == 21, "one sample runs again at the end"
