from __future__ import annotations

import contextlib
import io
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import Exit, InputError
from orchestrator.matrix.model import CsvInputs, ImageInputs, NpyInputs, NpzInputs
from orchestrator.staging.dataset import Dataset, load

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])


def npz(tmp_path: Path, *, slices: tuple[str, ...] = (), **arrays: Any) -> NpzInputs:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **arrays)
    labels = "y" if "y" in arrays else None
    return NpzInputs(name="s", type="npz", path=path, labels=labels, slices=slices)


def csv_set(tmp_path: Path, text: str, **options: Any) -> CsvInputs:
    path = tmp_path / "set.csv"
    path.write_text(text)
    return CsvInputs(name="s", type="csv", path=path, **options)


def refusal(spec: NpzInputs | NpyInputs | CsvInputs | ImageInputs) -> InputError:
    with pytest.raises(InputError) as caught:
        load(spec)
    assert caught.value.exit_code == Exit.USAGE
    assert caught.value.where
    assert "\n" not in str(caught.value)
    return caught.value


def equal(found: Dataset, x: Any, labels: Any) -> bool:
    assert found.labels is not None
    return np.array_equal(found.x, x) and np.array_equal(found.labels, labels)


def test_npz(tmp_path: Path) -> None:
    spec = npz(tmp_path, x=X, y=Y, who=np.array(["a", "b", "a", "b"]), slices=("who",))
    found = load(spec)
    assert equal(found, X, Y)
    assert found.x.dtype == np.float32
    assert found.slices["who"].tolist() == ["a", "b", "a", "b"]
    few = load(spec.model_copy(update={"limit": 3}))
    assert equal(few, X[:3], Y[:3])
    assert len(few.slices["who"]) == 3


def test_fortran_order_and_byte_order_are_understood(tmp_path: Path) -> None:
    for array in (np.asfortranarray(X), X.astype(">f4"), X.astype("<i2")):
        found = load(npz(tmp_path, x=array))
        assert np.array_equal(found.x, X)
        assert found.x.flags.c_contiguous


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    spec = NpyInputs(name="s", type="npy", path=tmp_path / "x.npy", labels=tmp_path / "y.npy")
    assert equal(load(spec), X, Y)
    assert load(spec.model_copy(update={"labels": None})).labels is None


OBJECTS = np.array([{"a": 1}, None, 3, 4], dtype=object)
NAN = X.copy()
NAN[2, 1] = np.nan
INF = X.copy()
INF[3, 0] = -np.inf


@pytest.mark.parametrize(
    ("arrays", "id", "says"),
    [
        ({"x": OBJECTS}, "E-INPUT-PICKLE", "[x]"),
        ({"x": X, "y": OBJECTS}, "E-INPUT-PICKLE", "[y]"),
        ({"x": NAN}, "E-INPUT-NAN", "sample 2 (and 0 more)"),
        ({"x": INF}, "E-INPUT-NAN", "sample 3"),
        ({"x": X, "y": np.array([0, 1, np.nan, 1])}, "E-INPUT-NAN", "label of sample 2"),
        ({"x": np.array(["a", "b"])}, "E-INPUT-DTYPE", "not numbers"),
        ({"x": X.astype(np.complex64)}, "E-INPUT-DTYPE", "complex64"),
        ({"x": np.array(["2024-01-01"], dtype="M8[D]")}, "E-INPUT-DTYPE", "datetime64"),
        ({"x": X, "y": np.array(["cat"] * 4)}, "E-INPUT-DTYPE", "labels are"),
        ({"x": X, "y": Y[:3]}, "E-INPUT-LABELS", "(3,), 4 samples"),
        ({"x": X, "y": np.array(1)}, "E-INPUT-LABELS", "()"),
        ({"x": np.zeros((0, 3))}, "E-INPUT-EMPTY", "(0, 3)"),
        ({"x": np.zeros((4, 0))}, "E-INPUT-EMPTY", "(4, 0)"),
        ({"x": np.float32(1)}, "E-INPUT-EMPTY", "()"),
        ({"images": X, "who": Y}, "E-INPUT-ARRAY", "it has images, who"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, Any], id: str, says: str) -> None:
    error = refusal(npz(tmp_path, **arrays))
    assert error.id == id
    assert says in str(error)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((4, 2))])
def test_slices_have_one_value_a_sample(tmp_path: Path, bad: Any) -> None:
    assert refusal(npz(tmp_path, x=X, s=bad, slices=("s",))).id == "E-INPUT-SLICES"


def test_a_limit_does_not_hide_a_length_mismatch(tmp_path: Path) -> None:
    spec = npz(tmp_path, x=X, y=Y[:3]).model_copy(update={"limit": 2})
    assert refusal(spec).id == "E-INPUT-LABELS"


def packed(tmp_path: Path, samples: int, order: Literal["C", "F"] = "C") -> NpzInputs:
    """A small file of many zeros, but for the first value of each sample."""
    x = np.zeros((samples, 1 << 16), np.float32, order=order)
    x[:, 0] = np.arange(samples)
    np.savez_compressed(tmp_path / "zeros.npz", x=x, y=np.arange(samples))
    assert (tmp_path / "zeros.npz").stat().st_size < x.nbytes / 100
    return NpzInputs(
        name="zeros", type="npz", path=tmp_path / "zeros.npz", labels="y", limit=min(samples, 20)
    )


def peak(spec: Any) -> tuple[Dataset, int]:
    """What was read, and the most bytes held meanwhile."""
    tracemalloc.start()
    try:
        return load(spec), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_more_memory_is_taken_than_the_limit_asks_for(tmp_path: Path) -> None:
    few = packed(tmp_path, 20)
    alone, needed = peak(few)
    many, taken = peak(packed(tmp_path, 300))
    assert np.array_equal(many.x, alone.x)
    assert many.labels is not None
    assert list(many.labels) == list(range(20))
    assert taken < needed * 1.1


def test_a_limit_of_an_array_in_fortran_order_is_of_samples(tmp_path: Path) -> None:
    found = load(packed(tmp_path, 30, "F"))
    assert list(found.x[:, 0]) == list(range(20))
    assert found.x.flags.c_contiguous


def test_a_limit_of_a_plain_array_takes_no_more_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((300, 1 << 16), np.float32))
    spec = NpyInputs(name="x", type="npy", path=tmp_path / "x.npy", limit=3)
    found, taken = peak(spec)
    assert found.x.shape == (3, 1 << 16)
    assert taken < 4 * found.x.nbytes


def test_a_limit_of_a_table_reads_no_further(tmp_path: Path) -> None:
    """What comes behind it is not even looked at."""
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,4\n" + "5,6\n" * 100_000 + "ragged\n")
    spec = CsvInputs(name="x", type="csv", path=tmp_path / "x.csv", limit=2)
    found, taken = peak(spec)
    assert found.x.tolist() == [[1, 2], [3, 4]]
    assert taken < 1 << 20
    assert refusal(spec.model_copy(update={"limit": None})).id == "E-INPUT-SHAPE"


def test_more_within_the_limit_than_may_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.staging.dataset.MAX_ARRAY_BYTES", 10 << 18)
    spec = packed(tmp_path, 30)
    error = refusal(spec)
    assert error.id == "E-INPUT-SIZE"
    assert "limit" in str(error)
    assert len(load(spec.model_copy(update={"limit": 10})).x) == 10


@pytest.mark.parametrize("shape", ["(-1, 4)", "(-4, -4)", "(2, -8)"])
def test_a_header_with_a_negative_length(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (tmp_path / "x.npy").write_bytes(data + bytes(64))
    spec = NpyInputs(name="x", type="npy", path=tmp_path / "x.npy")
    assert refusal(spec).id == "E-INPUT-UNREADABLE"


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (witness,)

    bad = np.empty(1, dtype=object)
    bad[0] = Evil()
    assert refusal(npz(tmp_path, x=bad)).id == "E-INPUT-PICKLE"
    assert not witness.exists()


def test_truncated_and_damaged_archives(tmp_path: Path) -> None:
    spec = npz(tmp_path, x=np.random.default_rng(0).random((50, 50)))
    whole = spec.path.read_bytes()
    for cut in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        spec.path.write_bytes(whole[:cut])
        assert refusal(spec).id == "E-INPUT-UNREADABLE", cut
    spec.path.write_bytes(whole[:300] + bytes(50) + whole[350:])
    assert refusal(spec).id == "E-INPUT-UNREADABLE"
    spec.path.unlink()
    assert refusal(spec).id == "E-INPUT-UNREADABLE"


def member(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        member("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"),
        member("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", bytes(15)),
        member("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", bytes(16)),
        member("{'descr': '<f4', 'shape': (4,)}", bytes(16)),
        member("{'descr': __import__('os').system('true'), 'shape': (4,)}", bytes(16)),
        member("(" * 200),
        member("{'descr': '<f4"),
    ],
)
def test_lying_headers(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
    error = refusal(NpzInputs(name="s", type="npz", path=path))
    assert error.id == "E-INPUT-UNREADABLE"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=6))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_damage_is_refused_or_harmless(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    file = io.BytesIO()
    np.save(file, X)
    content = bytearray(file.getvalue())
    for at, value in damage:
        content[at] = value
    (tmp_path / "x.npy").write_bytes(content)
    with contextlib.suppress(InputError):  # anything else that is raised fails this test
        found = load(NpyInputs(name="s", type="npy", path=tmp_path / "x.npy"))
        assert np.isfinite(found.x).all()


def test_csv(tmp_path: Path) -> None:
    text = "a,b,class,who\n1,2,0,x\n\n3,4.5,1,y\n"
    spec = csv_set(tmp_path, text, label="class", slices=("who",))
    found = load(spec)
    assert equal(found, [[1, 2], [3, 4.5]], [0, 1])
    assert found.x.dtype == np.float32
    assert found.labels is not None
    assert found.labels.dtype == np.int64
    assert found.slices["who"].tolist() == ["x", "y"]
    shaped = csv_set(tmp_path, text, columns=("b", "a"), shape=(1, 2, 1))
    assert load(shaped).x.tolist() == [[[[2], [1]]], [[[4.5], [3]]]]
    truth = csv_set(tmp_path, "a,y\n1,0.5\n2,1\n", label="y")
    assert equal(load(truth), [[1], [2]], [0.5, 1.0])


@pytest.mark.parametrize(
    ("text", "options", "id", "line"),
    [
        ("", {}, "E-INPUT-EMPTY", None),
        ("a,b\n", {}, "E-INPUT-EMPTY", None),
        ("a,b\n1,2\n3\n", {}, "E-INPUT-SHAPE", 3),
        ("a,a\n1,2\n", {}, "E-INPUT-ARRAY", 1),
        ("a,b\n1,2\n3,x\n", {}, "E-INPUT-DTYPE", 3),
        ("a,b\n1,2\n\n3,\n", {}, "E-INPUT-DTYPE", 4),
        ("a,b\n1,2\n", {"label": "c"}, "E-INPUT-ARRAY", 1),
        ("a,b\n1,2\n", {"columns": ("c",)}, "E-INPUT-ARRAY", 1),
        ("a,b\n1,cat\n", {"label": "b"}, "E-INPUT-DTYPE", 2),
        ("a,b\n1,nan\n", {}, "E-INPUT-NAN", None),
        ("a,b\n1,1e300\n", {}, "E-INPUT-NAN", None),
        ("a,b\n1,2\n", {"shape": (3,)}, "E-INPUT-SHAPE", None),
        ('a,b\n1,"2\n', {}, "E-INPUT-UNREADABLE", None),
    ],
)
def test_bad_tables(
    tmp_path: Path, text: str, options: dict[str, Any], id: str, line: int | None
) -> None:
    spec = csv_set(tmp_path, text, **options)
    error = refusal(spec)
    assert (error.id, error.where) == (id, f"{spec.path}:{line}" if line else str(spec.path))


def pictures(tmp_path: Path, **options: Any) -> ImageInputs:
    folder = tmp_path / "pictures"
    folder.mkdir(exist_ok=True)
    return ImageInputs(name="s", type="images", path=folder, size=(2, 3), **options)


def ppm(path: Path, colour: tuple[int, int, int], width: int = 3, height: int = 2) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(f"P6 {width} {height} 255\n".encode() + bytes(colour) * (width * height))


def test_without_pillow_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = pictures(tmp_path)
    ppm(spec.path / "a.ppm", (1, 2, 3))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    error = refusal(spec)
    assert error.id == "E-INPUT-PILLOW"
    assert "pillow" in str(error.fix)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert refusal(pictures(tmp_path)).id == "E-INPUT-EMPTY"


@pytest.mark.parametrize("name", ["../a.ppm", "/etc/a.ppm", "b/../../a.ppm"])
def test_a_list_that_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    labels = tmp_path / "l.csv"
    labels.write_text(f"file,label\n{name},1\n")
    error = refusal(pictures(tmp_path, labels=labels))
    assert (error.id, error.where) == ("E-INPUT-PATH", f"{labels}:2")


def test_pictures(tmp_path: Path) -> None:
    spec = pictures(tmp_path, class_folders=True)
    ppm(spec.path / "dog" / "1.ppm", (10, 20, 30))
    ppm(spec.path / "cat" / "2.ppm", (1, 2, 3), width=6, height=4)
    found = load(spec)
    assert found.x.shape == (2, 2, 3, 3)
    assert found.x.dtype == np.uint8
    assert found.x[:, 0, 0].tolist() == [[1, 2, 3], [10, 20, 30]]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1]
    labels = tmp_path / "l.csv"
    labels.write_text("file,label\ndog/1.ppm,7\ncat/2.ppm,5\n")
    listed = load(pictures(tmp_path, labels=labels, limit=1))
    assert equal(listed, found.x[1:], [7])
    (spec.path / "cat" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    assert refusal(spec).id == "E-INPUT-UNREADABLE"
