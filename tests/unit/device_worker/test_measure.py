"""The measuring loop with runtimes that misbehave on purpose, put into the registry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_worker import measure, runtimes, wire
from device_worker.arrays import Array
from device_worker.cache import Cache
from device_worker.errors import WorkerError
from device_worker.feed import Feed
from device_worker.feed import load as load_npy
from device_worker.runtimes import Interface, TensorInfo

Compute = Callable[[int, Array], list[Any]]


class Scripted:
    """A runtime that answers with ``compute(call number, input)``; input int8 [1, 4]."""

    load_ns = 5

    def __init__(self, compute: Compute) -> None:
        self._compute, self.calls, self.closed = compute, 0, False
        self.resets: list[int] = []
        self.notes: list[str] = []
        self.fed: list[Array] = []

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        self.calls += 1
        self.fed.append(inputs[0].copy())
        return self._compute(self.calls, inputs[0])

    def reset(self) -> None:
        """Notes the call that comes next."""
        self.resets.append(self.calls + 1)

    def describe(self) -> Interface:
        return Interface(
            [TensorInfo("x", "int8", [1, 4])], [TensorInfo("y", "int8", [1, 4], 0.5, -3)]
        )

    def backend(self) -> wire.Backend:
        return wire.Backend("scripted", {"scripted": 1})

    def version(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.closed = True


class Bench:
    """A cache with one model and one input set of 6 samples, and a scripted runtime."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.cache = root, Cache(str(root), 1 << 24)
        self.x = np.arange(24, dtype=np.int8).reshape(6, 4)
        (root / "incoming").mkdir()
        np.save(root / "incoming" / "x.npy", self.x)
        (root / "incoming" / "m").write_bytes(b"model")
        self.input, self.model = self._adopt("x.npy"), self._adopt("m")
        self._monkeypatch = monkeypatch
        self.progress: list[dict[str, Any]] = []

    def _adopt(self, name: str) -> wire.Blob:
        path = self.root / "incoming" / name
        blob = wire.Blob(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        self.cache.adopt(blob.sha256, str(path))
        return blob

    def model_path(self) -> Path:
        return Path(self.cache.path(self.model.sha256))

    def script(self, compute: Compute) -> Scripted:
        runtime = Scripted(compute)
        self._monkeypatch.setitem(runtimes.ADAPTERS, "scripted", lambda path, spec: runtime)
        return runtime

    def job(self, **fields: Any) -> wire.Job:
        tensor = wire.InputTensor("x", self.input, "int8", [6, 4])
        known: dict[str, Any] = {
            "attempt": "a1",
            "model": self.model,
            "model_format": "any",
            "inputs": [tensor],
            "runtime": wire.RuntimeSpec("scripted"),
            "samples": 6,
            "warmup": 2,
        }
        return wire.Job(**{**known, **fields})

    def run(self, **fields: Any) -> wire.JobResult:
        return measure.run_job(self.job(**fields), self.cache, str(self.root), self.progress.append)

    def fails(self, **fields: Any) -> tuple[str, str]:
        with pytest.raises(WorkerError) as caught:
            self.run(**fields)
        assert not (self.root / "out" / "a1").exists(), "files left behind by a failed attempt"
        return caught.value.kind, caught.value.code


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def same(call: int, x: Array) -> list[Any]:
    return [np.negative(x)]


def test_every_sample_is_fed_in_order_and_its_bytes_come_back(bench: Bench) -> None:
    runtime = bench.script(same)
    result = bench.run()
    fed = np.concatenate(runtime.fed)
    assert np.array_equal(fed, np.concatenate([bench.x[:2], bench.x])), "2 warm-ups, then all"
    output = result.outputs[0]
    assert np.array_equal(np.load(output.path), -bench.x)
    assert hashlib.sha256(Path(output.path).read_bytes()).hexdigest() == output.blob.sha256
    assert (output.scale, output.zero_point, output.shape) == (0.5, -3, [6, 4])
    hashes = np.load(result.files["sample_hashes"].path)
    assert [row.tobytes() for row in hashes] == [
        hashlib.sha256((-row).tobytes()).digest() for row in bench.x
    ]
    latency = np.load(result.files["latency_ns"].path)
    assert latency.dtype == np.int64
    assert (latency > 0).all()
    assert latency.sum() <= result.run_ns
    assert runtime.closed
    for file in result.files.values():
        data = Path(file.path).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.blob.sha256, file.blob.size)


def test_state_is_forgotten_before_every_inference(bench: Bench) -> None:
    runtime = bench.script(same)
    bench.run(samples=3, repeat=2, warmup=2, order=5)
    assert runtime.calls == 2 + 3 + 1 + 3
    assert runtime.resets == list(range(1, runtime.calls + 1))


@given(samples=st.integers(1, 50), seed=st.integers(0, 2**31 - 1))
def test_an_order_has_every_sample_once_and_is_the_seeds(samples: int, seed: int) -> None:
    order = measure.shuffled(samples, seed)
    assert sorted(order) == list(range(samples)) == list(measure.shuffled(samples, None))
    assert order == measure.shuffled(samples, seed)


def test_an_order_does_not_change_with_the_version_of_python() -> None:
    assert list(measure.shuffled(8, 1)) == [0, 3, 5, 4, 6, 2, 7, 1]


def test_a_shuffled_pass_puts_its_outputs_back_in_the_samples_order(bench: Bench) -> None:
    runtime = bench.script(same)
    plain, shuffled = bench.run(), bench.run(attempt="a2", order=3)
    assert plain.order is None
    order = measure.shuffled(6, 3)
    assert list(order) != list(range(6))
    fed = np.concatenate(runtime.fed[-7:])
    assert np.array_equal(fed, bench.x[[*order, order[0]]]), "shuffled, and the first once more"
    assert shuffled.order == wire.Ordered(3, order[0], True)
    assert shuffled.outputs[0].blob == plain.outputs[0].blob
    data = Path(shuffled.outputs[0].path).read_bytes()
    assert hashlib.sha256(data).hexdigest() == plain.outputs[0].blob.sha256
    hashes = [np.load(r.files["sample_hashes"].path) for r in (plain, shuffled)]
    assert np.array_equal(*hashes)
    assert wire.load(wire.JobResult, wire.dump(shuffled)) == shuffled


def test_a_runtime_that_remembers_gives_itself_away(bench: Bench) -> None:
    bench.script(lambda call, x: [np.full_like(x, call)])
    found = bench.run(order=3).order
    assert found is not None
    assert not found.same


def test_negative_zero_and_nan_payloads_survive(bench: Bench) -> None:
    odd = np.array([[0x80000000, 0x7FC00001, 0xFFC12345, 1]], np.uint32).view(np.float32)
    bench.script(lambda call, x: [odd])
    result = bench.run(samples=1)
    assert np.load(result.outputs[0].path).tobytes() == odd.tobytes()


def test_outputs_that_are_not_contiguous_are_stored_in_order(bench: Bench) -> None:
    bench.script(lambda call, x: [np.asfortranarray(np.arange(6, dtype=np.int16).reshape(1, 3, 2))])
    stored = np.load(bench.run().outputs[0].path)
    assert np.array_equal(stored[0], np.arange(6).reshape(3, 2))


def test_repeats_of_a_stable_model_agree(bench: Bench) -> None:
    runtime = bench.script(same)
    repeats = bench.run(samples=3, repeat=4).repeats
    assert repeats == wire.Repeats(count=4, samples=3, mismatches=0, first=[])
    assert runtime.calls == 2 + 3 * 4


def test_an_unstable_model_is_caught_with_sample_and_repeat(bench: Bench) -> None:
    def flaky(call: int, x: Array) -> list[Any]:
        y = x.copy()
        if call in (2 + 3 + 2, 2 + 3 * 3 + 3):  # sample 1 of repeat 1, sample 2 of repeat 3
            y[0, 0] ^= 1
        return [y]

    bench.script(flaky)
    repeats = bench.run(samples=3, repeat=4).repeats
    assert (repeats.mismatches, repeats.first) == (2, [[1, 1], [2, 3]])


def test_at_most_twenty_mismatches_are_listed_but_all_are_counted(bench: Bench) -> None:
    def drifting(call: int, x: Array) -> list[Any]:
        return [np.full((1, 4), call, np.int32)]

    bench.script(drifting)
    repeats = bench.run(repeat=10).repeats
    assert repeats.mismatches == 6 * 9
    assert len(repeats.first) == 20


def test_a_model_that_changes_during_the_run_is_infrastructure_trouble(bench: Bench) -> None:
    def tamper(call: int, x: Array) -> list[Any]:
        if call == 4:
            bench.model_path().write_bytes(b"mOdel")
        return [x]

    bench.script(tamper)
    assert bench.fails() == ("infra_error", "E-MODEL-CHANGED")


def test_a_model_replaced_during_the_run_is_noticed(bench: Bench) -> None:
    def swap(call: int, x: Array) -> list[Any]:
        if call == 4:
            copy = bench.root / "copy"
            copy.write_bytes(b"model")
            copy.replace(bench.model_path())
        return [x]

    bench.script(swap)
    assert bench.fails() == ("infra_error", "E-MODEL-CHANGED")


def test_a_model_evicted_by_another_session_harms_nobody(bench: Bench) -> None:
    def evict(call: int, x: Array) -> list[Any]:
        bench.model_path().unlink(missing_ok=True)
        return [x]

    bench.script(evict)
    assert bench.run().model_sha256 == bench.model.sha256


def test_a_model_damaged_in_the_cache_is_not_run(bench: Bench) -> None:
    runtime = bench.script(same)
    bench.model_path().write_bytes(b"mOdel")
    assert bench.fails() == ("infra_error", "E-MODEL-HASH")
    assert runtime.calls == 0


def test_an_input_damaged_in_the_cache_is_not_used(bench: Bench) -> None:
    bench.script(same)
    path = Path(bench.cache.path(bench.input.sha256))
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert bench.fails() == ("infra_error", "E-INPUT-HASH")


@pytest.mark.parametrize(("dtype", "shape"), [("uint8", [6, 4]), ("int8", [6, 2, 2])])
def test_an_input_that_is_not_what_the_job_says(bench: Bench, dtype: str, shape: list[int]) -> None:
    bench.script(same)
    tensor = wire.InputTensor("x", bench.input, dtype, shape)
    assert bench.fails(inputs=[tensor]) == ("infra_error", "E-INPUT-FORMAT")


def test_more_samples_than_the_input_has(bench: Bench) -> None:
    bench.script(same)
    assert bench.fails(samples=7) == ("infra_error", "E-INPUT-FORMAT")


@pytest.mark.parametrize("attempt", ["", "..", ".", "a/b", "a\n", "../../x", "a b"])
def test_attempt_ids_never_leave_the_folder(bench: Bench, attempt: str) -> None:
    bench.script(same)
    assert bench.fails(attempt=attempt) == ("infra_error", "E-ATTEMPT-ID")


def test_outputs_that_change_shape_between_samples(bench: Bench) -> None:
    bench.script(lambda call, x: [np.zeros((1, 3 + call % 2), np.int8)])
    assert bench.fails() == ("model_error", "E-MODEL-OUTPUT")


def test_outputs_without_number_type(bench: Bench) -> None:
    bench.script(lambda call, x: [np.array([["a"]], object)])
    assert bench.fails() == ("model_error", "E-MODEL-OUTPUT")


def test_a_full_disk_while_writing_outputs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def onto_the_full_device(call: int, x: Array) -> list[Any]:
        return [np.zeros((1, 1 << 20), np.int8)]

    bench.script(onto_the_full_device)
    out = bench.root / "out"
    out.mkdir()

    def made(path: str) -> None:
        Path(path).mkdir()
        (Path(path) / "output_0.npy").symlink_to("/dev/full")

    monkeypatch.setattr("device_worker.measure.os.makedirs", made)
    assert bench.fails() == ("infra_error", "E-DISK-FULL")


def test_an_unknown_runtime_is_not_available(bench: Bench) -> None:
    spec = wire.RuntimeSpec("no-such")
    assert bench.fails(runtime=spec) == ("not_available", "E-RUNTIME-UNKNOWN")
    spec = wire.RuntimeSpec("onnxruntime")
    assert bench.fails(runtime=spec, model_format="tflite") == ("not_available", "E-RUNTIME-FORMAT")


def test_a_load_failure_of_a_changed_file_is_not_blamed_on_the_model(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opener(path: str, spec: wire.RuntimeSpec) -> runtimes.Runtime:
        Path(path).write_bytes(b"torn")
        raise WorkerError("model_error", "E-MODEL-LOAD", "cannot parse")

    monkeypatch.setitem(runtimes.ADAPTERS, "scripted", opener)
    assert bench.fails() == ("infra_error", "E-MODEL-CHANGED")


@pytest.mark.parametrize("what", ["load", "inference"])
def test_what_is_refused_once_and_granted_again_is_not_the_models_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    tries = []

    def once() -> None:
        tries.append(what)
        if len(tries) == 1:
            raise WorkerError("model_error", "E-MODEL-RUN", "cannot be done")

    def infer(call: int, x: Array) -> list[Any]:
        if what == "inference":
            once()
        return [x]

    runtime = Scripted(infer)

    def opener(path: str, spec: wire.RuntimeSpec) -> Scripted:
        if what == "load":
            once()
        return runtime

    monkeypatch.setitem(runtimes.ADAPTERS, "scripted", opener)
    assert bench.fails() == ("infra_error", "E-WORKER-SHORT")
    assert len(tries) == 2


def test_what_is_granted_only_to_fewer_threads_is_not_the_models_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Scripted(same)

    def opener(path: str, spec: wire.RuntimeSpec) -> Scripted:
        if spec.threads > 1:
            raise WorkerError("model_error", "E-MODEL-LOAD", "cannot be done")
        return runtime

    monkeypatch.setitem(runtimes.ADAPTERS, "scripted", opener)
    spec = wire.RuntimeSpec("scripted", threads=4)
    assert bench.fails(runtime=spec) == ("infra_error", "E-WORKER-SHORT")
    assert bench.run().outputs


def test_what_is_refused_twice_is_the_models_fault(bench: Bench) -> None:
    def never(call: int, x: Array) -> list[Any]:
        raise WorkerError("model_error", "E-MODEL-RUN", "cannot be done")

    bench.script(never)
    assert bench.fails() == ("model_error", "E-MODEL-RUN")


def test_progress_is_told_at_most_every_second(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(0, 10**12, 300_000_000))
    monkeypatch.setattr("device_worker.measure.time.perf_counter_ns", lambda: next(ticks))
    bench.script(same)
    bench.run(repeat=3)
    assert 1 <= len(bench.progress) < 3 * 6
    assert {row["phase"] for row in bench.progress} == {"run", "repeat"}
    assert all(0 < row["done"] <= row["total"] for row in bench.progress)


@pytest.mark.parametrize("shape", [(5, 3), (5, 64), (5, 7, 9)])
@pytest.mark.parametrize("mapped", [False, True])
def test_samples_are_always_aligned_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], mapped: bool
) -> None:
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.save(tmp_path / "x.npy", data)
    monkeypatch.setattr("device_worker.feed._IN_MEMORY", 0 if mapped else 1 << 20)
    array = load_npy(str(tmp_path / "x.npy"))
    assert isinstance(array, np.memmap) == mapped
    feed = Feed([array])
    for index in range(5):
        (sample,) = feed.sample(index)
        assert sample.ctypes.data % 64 == 0
        assert sample.flags.c_contiguous
        assert not isinstance(sample, np.memmap), "page faults must not fall into the timed call"
        assert sample.shape == (1, *shape[1:])
        assert sample.tobytes() == data[index].tobytes()


def test_pickled_arrays_are_refused(bench: Bench) -> None:
    bench.script(same)
    path = bench.root / "incoming" / "evil.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    tensor = wire.InputTensor("x", bench._adopt("evil.npy"), "object", [6])
    assert bench.fails(inputs=[tensor]) == ("infra_error", "E-INPUT-FORMAT")


def test_inputs_are_matched_by_name() -> None:
    a, b = np.zeros((2, 3), np.float32), np.zeros((2, 5), np.int8)
    wanted = [TensorInfo("b", "int8", [1, 5]), TensorInfo("a", "float32", [None, 3])]
    found = measure.matched(wanted, {"a": a, "b": b})
    assert found[0] is b
    assert found[1] is a
    with pytest.raises(WorkerError, match="E-INPUT-MISFIT"):
        measure.matched(wanted, {"a": a, "c": b})
    with pytest.raises(WorkerError, match="E-INPUT-MISFIT"):
        measure.matched(wanted, {"a": a})


def test_a_single_input_needs_no_matching_name_but_must_fit() -> None:
    x = np.zeros((2, 3), np.float32)
    assert measure.matched([TensorInfo("in:0", "float32", [1, 3])], {"x": x})[0] is x
    for info in (
        TensorInfo("in", "float32", [1, 4]),
        TensorInfo("in", "int8", [1, 3]),
        TensorInfo("in", "float32", [8, 3]),
        TensorInfo("in", "float32", [1, 3, 1]),
    ):
        with pytest.raises(WorkerError, match="E-INPUT-MISFIT"):
            measure.matched([info], {"x": x})


def test_a_repeated_attempt_starts_from_an_empty_folder(bench: Bench) -> None:
    bench.script(same)
    bench.run()
    left = bench.root / "out" / "a1" / "left"
    left.write_text("old")
    bench.run()
    assert not left.exists()
