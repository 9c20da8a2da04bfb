"""A hub and hermetic bundles: brought like every file, also to a hub on another machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from orchestrator.fanout.hub import Hub
from tests.support.hermetic import small
from tests.support.orders import Bench, refused


def test_a_hub_that_has_been_given_the_bundle_brings_it_to_the_device(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    bench = Bench(tmp_path / "bench")
    here = small(tmp_path, python=sys.executable)
    order = replace(
        bench.order("one", python="bundle:small"), bundle=replace(here, path="/nowhere/x.tar.gz")
    )
    assert order.files == {**order.blobs, here.sha256: "/nowhere/x.tar.gz"}
    hub = Hub(tmp_path / "spool")
    try:
        assert hub.lacks(order.files) == [here.sha256]
        hub.receive(here.sha256, Path(here.path).read_bytes())
        assert hub.lacks(order.files) == []
        finished = hub.run(order)
        bench.check(finished)
        assert finished.result is not None
        assert finished.result["bundle"] == {"name": "small", "sha256": here.sha256}
        assert finished.bytes_pushed > here.size
        hub.let_go("one")
        again = bench.order("one", python="bundle:small", token=2)
        second = hub.run(replace(again, bundle=order.bundle))
        bench.check(second)
        assert second.bytes_pushed == 0
    finally:
        hub.close()


def test_a_damaged_bundle_is_the_farms_fault_and_the_next_attempt_is_whole(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    bench = Bench(tmp_path / "bench")
    here = small(tmp_path, python=sys.executable)
    whole = Path(here.path).read_bytes()
    hub = Hub(tmp_path / "spool")
    try:
        Path(here.path).write_bytes(whole[:-1] + b"?")
        finished = hub.run(replace(bench.order("one", python="bundle:small"), bundle=here))
        assert refused(finished) == ("infra_error", "E-BUNDLE-HASH", True)
        Path(here.path).write_bytes(whole)
        bench.check(hub.run(replace(bench.order("one", python="bundle:small"), bundle=here)))
    finally:
        hub.close()


def test_a_bundle_for_another_machine_is_said_to_be_no_python(tmp_path: Path) -> None:
    """Also where the inventory names it for one runtime alone: a bundle is there or broken."""
    (tmp_path / "bench").mkdir()
    bench = Bench(tmp_path / "bench")
    foreign = small(tmp_path, python="/nonexistent/ld-linux-other.so")
    hub = Hub(tmp_path / "spool")
    try:
        order = bench.order("one", python="bundle:small")
        finished = hub.run(replace(order, bundle=foreign, own_python=True))
        assert refused(finished) == ("infra_error", "E-DEVICE-PYTHON", False)
    finally:
        hub.close()
