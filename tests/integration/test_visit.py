"""Leasing a device of an inventory for a question that is not a cell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.checkup import Reservations
from orchestrator.errors import InfraError, NotAvailableError
from orchestrator.matrix.inventory import Device
from orchestrator.store.database import Store
from orchestrator.visit import visit


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
