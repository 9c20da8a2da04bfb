"""Leasing a device of an inventory for a question that is not a cell."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from orchestrator.coordinator.reservations import Reservations
from orchestrator.coordinator.visit import visit
from orchestrator.devices.checks import StoppedError
from orchestrator.errors import InfraError, NotAvailableError
from orchestrator.matrix.inventory import Device
from orchestrator.store.database import Store
from orchestrator.store.records import Lease


def device(root: Path, **changes: object) -> Device:
    plain = {
        "name": "bench",
        "class": "host",
        "transport": {"type": "local", "root": str(root)},
        "python": {"onnxruntime": sys.executable},
    }
    return Device.model_validate(plain | changes)


def test_a_visit_holds_the_lease_and_gives_it_back(tmp_path: Path) -> None:
    store = tmp_path / "store"
    Store.open(store).close()
    with Reservations(store) as reservations:
        with visit(device(tmp_path / "root"), reservations) as there:
            assert there.worker("onnxruntime").ping(10) < 10
            with pytest.raises(NotAvailableError, match="E-RUNTIME-MISSING"):
                there.worker("litert")
            with Store.open(store, readonly=True) as opened:
                assert [lease.device for lease in opened.leases()] == ["bench"]
            with (
                Reservations(store) as others,
                pytest.raises(InfraError, match="E-DEVICE-IN-USE"),
                visit(device(tmp_path / "root"), others),
            ):
                pass
        with Store.open(store, readonly=True) as opened:
            assert opened.leases() == []


def test_a_device_of_another_hub_is_not_looked_for(tmp_path: Path) -> None:
    with (
        Reservations(tmp_path / "none") as reservations,
        pytest.raises(InfraError, match="E-DEVICE-HUB"),
        visit(device(tmp_path / "root", hub="lab-a"), reservations),
    ):
        pass


def test_the_end_gives_back_what_a_thread_is_still_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C waits for threads on devices, but not for ever; nor is a lease granted after it."""
    store, bench = tmp_path / "store", device(tmp_path / "root")
    Store.open(store).close()
    giving_back, go_on = threading.Event(), threading.Event()
    release = Store.release

    def slowly(self: Store, lease: Lease) -> None:
        if threading.current_thread() is not threading.main_thread():
            giving_back.set()
            assert go_on.wait(30)
        release(self, lease)

    monkeypatch.setattr(Store, "release", slowly)

    def work(reservations: Reservations) -> None:
        with reservations.of(bench):
            pass

    with Reservations(store) as reservations:
        thread = threading.Thread(target=work, args=(reservations,))
        thread.start()
        assert giving_back.wait(30)
    with Store.open(store, readonly=True) as opened:
        assert opened.leases() == []
    with pytest.raises(StoppedError):
        work(reservations)
    go_on.set()
    thread.join(30)
    with Store.open(store, readonly=True) as opened:
        assert opened.leases() == []
