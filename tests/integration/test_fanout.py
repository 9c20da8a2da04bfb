"""One contract for both fan-outs: threads in this process, and hub actors over Ray."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.devices.session import Limits
from orchestrator.errors import DeadlineError, InfraError, InputError, ModelError
from orchestrator.fanout import cluster
from orchestrator.fanout.cluster import Cluster
from orchestrator.fanout.executor import Executor, Seat
from orchestrator.fanout.inprocess import InProcess
from orchestrator.fanout.ray_start import ray
from orchestrator.transports.settings import Fault
from tests.support import hostile
from tests.support.line import workers
from tests.support.orders import Bench, refused

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="module", params=["inprocess", "ray"])
def fan(request: pytest.FixtureRequest, spool: Path) -> Iterator[Executor]:
    made: Executor
    if request.param == "ray":
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("RAY_ADDRESS", raising=False)
            made = Cluster(["one", "two"], spool / "ray")
    else:
        made = InProcess(spool / "inprocess")
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# Orders --------------------------------------------------------------------------------------


def test_an_order_is_carried_out(fan: Executor, bench: Bench) -> None:
    order = bench.order("one")
    before = time.time()
    finished = fan.run(order).result()
    bench.check(finished)
    assert (finished.attempt, finished.device, finished.token) == (order.job.attempt, "one", 1)
    assert before <= finished.started_unix <= finished.ended_unix <= time.time()
    assert finished.bytes_pushed > sum(Path(p).stat().st_size for p in order.blobs.values())
    fan.let_go("one")


def test_a_second_order_sends_nothing_again(fan: Executor, bench: Bench) -> None:
    fan.run(bench.order("one")).result()
    again = fan.run(bench.order("one")).result()
    bench.check(again)
    assert again.bytes_pushed == 0
    fan.let_go("one")


def test_orders_of_one_device_wait_for_each_other(fan: Executor, bench: Bench) -> None:
    both = [fan.run(bench.order("one", repeat=300)) for _ in range(2)]
    done = sorted((future.result() for future in both), key=lambda f: f.ended_unix)
    for finished in done:
        bench.check(finished)
    assert len(workers(bench.root("one"))) == 1
    fan.let_go("one")


def test_devices_work_side_by_side(fan: Executor, bench: Bench) -> None:
    both = [fan.run(bench.order(name, repeat=20_000)) for name in ("one", "two")]
    one, two = (future.result() for future in both)
    bench.check(one)
    bench.check(two)
    assert max(one.started_unix, two.started_unix) < min(one.ended_unix, two.ended_unix)
    fan.let_go("one")
    fan.let_go("two")


def test_let_go_ends_the_worker_and_frees_the_device(fan: Executor, bench: Bench) -> None:
    fan.run(bench.order("one")).result()
    assert len(workers(bench.root("one"))) == 1
    lease = json.loads((bench.root("one") / "lease.json").read_text())
    assert (lease["owner"], lease["token"]) == ("farm", 1)
    fan.let_go("one")
    assert workers(bench.root("one")) == []
    assert json.loads((bench.root("one") / "lease.json").read_text())["owner"] is None
    fan.let_go("one")
    fan.let_go("never heard of")


def test_a_newer_token_is_another_session(fan: Executor, bench: Bench) -> None:
    bench.check(fan.run(bench.order("one", token=1)).result())
    bench.check(fan.run(bench.order("one", token=2)).result())
    stale = fan.run(bench.order("one", token=1)).result()
    assert refused(stale) == ("infra_error", "E-LEASE-STALE", False)
    bench.check(fan.run(bench.order("one", token=3)).result())
    fan.let_go("one")


def test_a_blob_that_the_hub_cannot_read_is_brought(
    fan: Executor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths: this process changes its folder, a hub of its own stays where it was."""
    monkeypatch.chdir(bench.folder)
    new = Bench(bench.folder, columns=7)
    new.check(fan.run(new.order("one", samples=6, paths=bench.folder)).result(), samples=6)
    fan.let_go("one")


# Errors --------------------------------------------------------------------------------------

SHORT = Limits(cell=30.0, silence=4.0)
LARGE = 30_000
"""Samples whose outputs are too many for one line: they come by ``pull``."""
LITTER = ("infra_error", "E-WORKER-GARBAGE", True)


def fault(kind: str, on: str, **more: Any) -> Fault:
    return Fault.model_validate({"kind": kind, "on": on, **more})


def test_what_is_wrong_with_a_model_is_told_apart(fan: Executor, bench: Bench) -> None:
    finished = fan.run(bench.order("one", model=b"no model at all")).result()
    assert refused(finished) == ("model_error", "E-MODEL-LOAD", False)
    bench.check(fan.run(bench.order("one")).result())
    fan.let_go("one")


def test_a_runtime_without_a_python_is_not_available(fan: Executor, bench: Bench) -> None:
    finished = fan.run(bench.order("one", python=None)).result()
    assert refused(finished) == ("not_available", "E-RUNTIME-MISSING", False)


@pytest.mark.parametrize(
    ("faults", "samples", "expected"),
    [
        ([fault("drop", "push")], 5, ("infra_error", "E-LINK", True)),
        ([fault("drop", "start")], 5, ("infra_error", "E-LINK", True)),
        ([fault("drop", "read", after=2)], 5, ("infra_error", "E-LINK", True)),
        ([fault("drop", "pull")], LARGE, ("infra_error", "E-LINK", True)),
        ([fault("corrupt", "push", after=1)], 5, ("infra_error", "E-CACHE-HASH", True)),
        ([fault("corrupt", "pull")], LARGE, ("infra_error", "E-TRANSFER-HASH", True)),
        ([fault("disk_full", "push", after=1)], 5, ("infra_error", "E-DISK-FULL", False)),
        ([fault("stall", "read", after=3)], 5, ("infra_error", "E-LINK", True)),
        ([fault("garbage", "read", after=1, times=20)], 5, LITTER),
        ([fault("huge_line", "read", after=1)], 5, LITTER),
    ],
    ids=lambda value: f"{value[0].kind}-{value[0].on}" if isinstance(value, list) else None,
)
def test_a_fault_is_a_failed_attempt_and_the_next_one_is_whole(
    fan: Executor,
    bench: Bench,
    faults: list[Fault],
    samples: int,
    expected: tuple[str, str, bool],
) -> None:
    order = bench.order("one", *faults, samples=samples, limits=SHORT)
    assert refused(fan.run(order).result()) == expected
    again = bench.order("one", *faults, samples=samples, limits=SHORT)
    bench.check(fan.run(again).result(), samples)
    fan.let_go("one")


@pytest.mark.parametrize(
    "faults",
    [
        [fault("slow", on, times=None) for on in ("start", "push", "pull", "read")],
        [fault("garbage", "read", after=1, times=3)],
        [fault("corrupt", "push")],
    ],
    ids=["slow", "litter", "bundle-spoilt-once"],
)
def test_what_only_delays_an_order(fan: Executor, bench: Bench, faults: list[Fault]) -> None:
    finished = fan.run(bench.order("one", *faults, samples=LARGE)).result()
    if faults[0].kind == "corrupt":
        assert refused(finished)[1] == "E-WORKER-HASH"
        finished = fan.run(bench.order("one", *faults, samples=LARGE)).result()
    bench.check(finished, LARGE)
    fan.let_go("one")


@pytest.mark.parametrize(
    ("mode", "id"),
    [("nan", "E-WORKER-GARBAGE"), ("role-absolute", "E-RESULT-FILES"), ("fifo", "E-TRANSFER")],
)
def test_a_device_that_lies_is_a_failed_attempt(
    fan: Executor, bench: Bench, mode: str, id: str
) -> None:
    liar = hostile.interpreter(bench.folder, mode)
    order = bench.order("one", python=liar)
    assert refused(fan.run(order).result()) == ("infra_error", id, True)
    assert not [path for path in bench.folder.rglob("*") if "evil" in path.name]
    fan.let_go("one")


def test_a_device_of_another_farm_is_not_touched(fan: Executor, bench: Bench) -> None:
    held = fan.run(bench.order("one", repeat=300))
    bench.check(held.result())
    # Its worker is warm and beats: the other farm, known under another name, is refused.
    other = bench.order("two", owner="other farm")
    transport = bench.order("one").target.transport
    shared = replace(other, target=replace(other.target, transport=transport))
    assert refused(fan.run(shared).result()) == ("infra_error", "E-LEASE-HELD", True)
    bench.check(fan.run(bench.order("one")).result())
    fan.let_go("one")


# Spool ---------------------------------------------------------------------------------------


def test_a_finished_attempt_is_held_until_it_is_forgotten(fan: Executor, bench: Bench) -> None:
    fan.forget(fan.spooled())
    wait_for(lambda: fan.spooled() == [])
    good, bad = bench.order("one"), bench.order("one", model=b"no model")
    delivered = {f.attempt: f for f in (fan.run(good).result(), fan.run(bad).result())}
    assert fan.spooled() == sorted(delivered)
    for attempt, finished in delivered.items():
        assert fan.redeliver(attempt) == finished
    fan.forget([good.job.attempt])
    wait_for(lambda: fan.spooled() == [bad.job.attempt])
    with pytest.raises(InfraError, match="E-HUB-SPOOL"):
        fan.redeliver(good.job.attempt)
    fan.forget([bad.job.attempt, "never heard of"])
    wait_for(lambda: fan.spooled() == [])
    fan.let_go("one")


def test_a_bit_that_flips_on_a_hubs_disk_or_on_the_way_through_ray(
    fan: Executor, bench: Bench, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = bench.order("one")
    bench.check(fan.run(order).result())
    (path,) = spool.rglob(f"{order.job.attempt}.attempt")
    path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(InfraError, match="E-RESULT-HASH"):
        fan.redeliver(order.job.attempt)
    fan.forget([order.job.attempt])
    if isinstance(fan, Cluster):
        honest = cluster._Hub._get

        def get(self: Any, ref: Any, seconds: float) -> Any:
            found = honest(self, ref, seconds)
            return flipped(found) if isinstance(found, bytes) else found

        monkeypatch.setattr(cluster._Hub, "_get", get)
        with pytest.raises(InfraError, match="E-RESULT-HASH"):
            fan.run(bench.order("one")).result()
    fan.let_go("one")


class Older:
    """A hub of an Assay that was not asked yet which form its answers have."""

    def pid(self) -> int:
        return os.getpid()

    def form(self) -> int:
        # What Ray raises in an actor's process for a method that its class has not.
        raise AttributeError("'Hub' object has no attribute 'form'")


class Newer(Older):
    def form(self) -> int:
        return 2


@pytest.mark.parametrize(("kind", "which"), [(Older, "an older"), (Newer, "another")])
def test_a_hub_of_another_version_is_refused_in_a_line(
    fan: Executor, bench: Bench, kind: type[Older], which: str
) -> None:
    if isinstance(fan, Cluster):  # threads are of our own version
        actor: Any = ray.remote(num_cpus=0)(kind).remote()
        with pytest.raises(InfraError, match=f"runs {which} Assay") as refusal:
            cluster._Hub(Seat("lab", 0), actor).carry_out(bench.order("one"))
        assert (refusal.value.id, refusal.value.retryable) == ("E-HUB-VERSION", False)
        ray.kill(actor)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def wait_for(true: Any) -> None:
    """Forgetting is not waited for."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


# Compute -------------------------------------------------------------------------------------


def add(a: int, b: int) -> int:
    return a + b


def fail(kind: str) -> None:
    raise {
        "value": ValueError("three"),
        "model": ModelError("E-MODEL-LOAD", "no", where="m.onnx", fix="another"),
        "input": InputError("E-INPUT-NAN", "sample 7 is NaN", where="x.npz"),
        "infra": InfraError("E-LINK", "gone", retryable=False),
        "deadline": DeadlineError("E-SILENCE", "nothing heard"),
    }[kind]


def test_compute(fan: Executor) -> None:
    many: list[Future[int]] = [fan.compute(add, i, 1) for i in range(8)]
    assert [future.result() for future in many] == list(range(1, 9))


@pytest.mark.parametrize("kind", ["value", "model", "input", "infra", "deadline"])
def test_an_error_in_compute_arrives_as_itself(fan: Executor, kind: str) -> None:
    with pytest.raises(Exception) as local:
        fail(kind)
    with pytest.raises(type(local.value)) as far:
        fan.compute(fail, kind).result()
    assert str(far.value) == str(local.value)
    ours = {k: v for k, v in vars(far.value).items() if k in vars(local.value)}
    assert ours == vars(local.value)


def test_hub_pids(fan: Executor) -> None:
    (pid,) = fan.hub_pids()
    assert (pid == os.getpid()) is isinstance(fan, InProcess)
