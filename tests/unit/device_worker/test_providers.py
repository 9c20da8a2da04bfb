"""Execution providers and engines.

No machine here has a GPU: what needs TensorRT itself - that it takes these options, builds engines
and answers - awaits one. Everything around it is here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from device_worker.cache import sha256_file
from device_worker.errors import WorkerError
from device_worker.runtimes import engines, providers
from device_worker.runtimes.providers import CPU, Chain, chain, fallbacks, profiled
from device_worker.wire import RuntimeSpec
from tests.unit.device_worker.harness import gemm

TRT, CUDA, AZURE = "TensorrtExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider"
SHA = "ab" + "0" * 62


def test_the_wanted_provider_comes_first_and_the_cpu_last(tmp_path: Path) -> None:
    spec = RuntimeSpec("onnxruntime", providers=[CUDA], provider_options={CUDA: {"a": "1"}})
    found = chain(spec, [TRT, CUDA, CPU], f"{tmp_path}/cache/ab/{SHA}", "1.23")
    assert found == Chain([CUDA], [(CUDA, {"a": "1"}), (CPU, {})], "")


def test_tensorrt_gets_int8_and_a_cache_of_its_own(tmp_path: Path) -> None:
    model = f"{tmp_path}/cache/ab/{SHA}"
    found = chain(RuntimeSpec("onnxruntime", providers=[TRT, CUDA]), [TRT, CPU], model, "1.23")
    assert found.named == [TRT, CUDA]
    assert [name for name, _ in found.given] == [TRT, CPU]
    options = found.given[0][1]
    assert options["trt_int8_enable"] == options["trt_engine_cache_enable"] == "True"
    assert options["trt_engine_cache_path"] == found.engines
    assert Path(found.engines).parent == tmp_path / "engines"
    assert Path(found.engines).name.startswith(SHA[:16])


def test_what_was_asked_for_goes_before_the_defaults(tmp_path: Path) -> None:
    asked = {TRT: {"trt_int8_enable": "False", "trt_engine_cache_path": str(tmp_path / "own")}}
    spec = RuntimeSpec("onnxruntime", providers=[TRT], provider_options=asked)
    found = chain(spec, [TRT, CPU], f"{tmp_path}/cache/ab/{SHA}", "1.23")
    assert found.given[0][1]["trt_int8_enable"] == "False"
    assert found.engines == str(tmp_path / "own")


def test_engines_are_shared_by_equal_ways_of_building_only(tmp_path: Path) -> None:
    model = f"{tmp_path}/cache/ab/{SHA}"
    same = {engines.folder(model, TRT, {}, "1.23") for _ in range(2)}
    assert len(same) == 1
    others = {
        engines.folder(model, TRT, {}, "1.24"),
        engines.folder(model, TRT, {"trt_fp16_enable": "True"}, "1.23"),
        engines.folder(f"{tmp_path}/cache/cd/cd{SHA[2:]}", TRT, {}, "1.23"),
    }
    assert len(others | same) == 4


def test_every_engine_is_hashed_and_a_new_one_is_noticed(tmp_path: Path) -> None:
    assert engines.hashes(str(tmp_path / "none")) == {}
    (tmp_path / "sub").mkdir()
    for name in ("a.engine", "a.profile", "t.timing", "sub/b.engine", "notes.txt"):
        (tmp_path / name).write_text(name)
    before = engines.hashes(str(tmp_path))
    assert before == {
        name: sha256_file(str(tmp_path / name))
        for name in ("a.engine", "a.profile", "sub/b.engine", "t.timing")
    }
    (tmp_path / "t.timing").write_text("another")
    (tmp_path / "a.profile").write_text("another")
    assert not engines.built(before, engines.hashes(str(tmp_path)))
    (tmp_path / "a.engine").write_text("rebuilt")
    assert engines.built(before, engines.hashes(str(tmp_path)))
    assert engines.built({}, before)


@pytest.mark.parametrize(
    ("named", "session", "nodes", "lines"),
    [
        ([CPU], [CPU], {CPU: 5}, []),
        ([TRT, CUDA], [TRT, CUDA, CPU], {TRT: 3, CUDA: 2}, []),
        ([TRT, CUDA, CPU], [TRT, CUDA, CPU], {TRT: 3, CPU: 2}, []),
        (
            [TRT, CUDA],
            [CUDA, CPU],
            {CUDA: 3},
            [f"asked for {TRT}, session has {CUDA}, {CPU}"],
        ),
        (
            [TRT, CUDA],
            [TRT, CPU],
            {TRT: 1, CPU: 2},
            [
                f"asked for {CUDA} as well, session has {TRT}, {CPU}",
                f"asked for {TRT}, {CUDA}, 2 operators run on {CPU}",
            ],
        ),
        ([CUDA], [CUDA, CPU], {CPU: 4}, [f"asked for {CUDA}, it was given no operator"]),
        ([TRT], [TRT, CPU], {TRT: 1, CPU: 3}, [f"asked for {TRT}, 3 operators run on {CPU}"]),
    ],
)
def test_every_fallback_is_a_line(
    named: list[str], session: list[str], nodes: dict[str, int], lines: list[str]
) -> None:
    assert fallbacks(named, session, nodes) == lines


def test_a_profile_counts_each_kernel_once() -> None:
    def event(name: str, provider: str | None, cat: str = "Node") -> dict[str, Any]:
        return {"cat": cat, "name": name, "args": {"provider": provider} if provider else {}}

    events = [
        event("model_run", None, "Session"),
        event("conv_fence_before", CUDA),
        *(2 * [event("conv_kernel_time", CUDA)]),
        event("pool_kernel_time", CUDA),
        event("TRTKernel_graph_0_kernel_time", TRT),
        event("odd_kernel_time", None),
    ]
    assert profiled(json.dumps(events)) == {CUDA: 2, TRT: 1}
    with pytest.raises(ValueError):
        profiled("no profile")


@pytest.fixture
def onnx(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    from device_worker.runtimes import onnx

    return onnx


def test_releases_that_do_not_tell_are_asked_by_profile(
    onnx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip("this build offers no second provider")
    spec = RuntimeSpec("onnxruntime", providers=[AZURE])
    new = onnx.OnnxRuntime(str(gemm(tmp_path / "a.onnx")), spec).backend()
    monkeypatch.setattr(onnx, "assigned", lambda session: {})
    old = onnx.OnnxRuntime(str(gemm(tmp_path / "b.onnx")), spec).backend()
    assert old == new
    assert old.nodes == {CPU: 1}


def test_options_of_a_provider_that_is_not_asked_for(onnx: Any, tmp_path: Path) -> None:
    spec = RuntimeSpec("onnxruntime", provider_options={CUDA: {"device_id": "0"}})
    with pytest.raises(WorkerError) as caught:
        onnx.OnnxRuntime(str(gemm(tmp_path / "m.onnx")), spec)
    assert caught.value.code == "E-RUNTIME-OPTION"


def test_a_build_is_timed_apart_and_the_measured_session_comes_from_the_cache(
    onnx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime is real; that it leaves an engine behind is played, as TensorRT would do it."""
    cache = tmp_path / "engines"
    opened = []

    class Building(onnx.OnnxRuntime):  # type: ignore[misc]  # onnx is loaded by a fixture
        def _open(self, options: Any) -> Any:
            opened.append(sorted(path.name for path in cache.iterdir()))
            session = super()._open(options)
            if not opened[-1]:
                (cache / "net.engine").write_bytes(b"engine")
            return session

    def scripted(*arguments: Any) -> Chain:
        return Chain([CPU], [(CPU, {})], str(cache))

    monkeypatch.setattr(onnx, "chain", scripted)
    path = str(gemm(tmp_path / "m.onnx"))
    first = Building(path, RuntimeSpec("onnxruntime"))
    assert opened == [[], ["net.engine"]]
    backend = first.backend()
    assert backend.engines == {"net.engine": sha256_file(str(cache / "net.engine"))}
    assert backend.build_ns is not None
    assert backend.build_ns > 0
    opened.clear()
    again = Building(path, RuntimeSpec("onnxruntime"))
    assert opened == [["net.engine"]]
    assert again.backend().build_ns is None
    assert again.backend().engines == backend.engines


def test_a_plan_that_a_provider_compiled_has_no_hash(
    onnx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Compiling(onnx.OnnxRuntime):  # type: ignore[misc]  # onnx is loaded by a fixture
        def _open(self, options: Any) -> Any:
            if options.optimized_model_filepath:
                raise RuntimeError(
                    "Unable to serialize model as it contains compiled nodes. Please disable any "
                    "execution providers which generate compiled nodes."
                )
            return super()._open(options)

    backend = Compiling(str(gemm(tmp_path / "m.onnx")), RuntimeSpec("onnxruntime")).backend()
    assert backend.plan_sha256 is None
    assert backend.nodes == {CPU: 1}
    assert providers.fallbacks([CPU], [CPU], backend.nodes) == backend.fallbacks == []


def test_a_gpu_that_fails_is_not_the_models_fault(onnx: Any, tmp_path: Path) -> None:
    runtime = onnx.OnnxRuntime(str(gemm(tmp_path / "m.onnx")), RuntimeSpec("onnxruntime"))
    text = "CUDA failure 719: unspecified launch failure ; GPU=0"
    found = runtime._blame(RuntimeError(text), "E-MODEL-RUN")
    assert (found.kind, found.code) == ("infra_error", "E-ACCELERATOR")
    assert runtime._blame(RuntimeError("bad shape"), "E-MODEL-RUN").kind == "model_error"
