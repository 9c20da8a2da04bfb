"""Fingerprints in a real store: the newest of each device and configuration, for every reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InfraError
from orchestrator.store import fingerprints
from orchestrator.store.database import Store
from orchestrator.store.readonly import glance
from tests.integration.store_kit import add_devices

FACTS = {"machine": "aarch64", "runtime": {"name": "litert", "version": "2.3.0"}}


def keep(store: Store, device: str, configuration: str, sha: str) -> None:
    document = {"sha256": sha, "families": {}}
    fingerprints.save(store, device, configuration, "2.3.0", FACTS, document)


def test_the_newest_counts_and_both_readers_say_the_same(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        add_devices(store, "b", "a")
        keep(store, "b", "litert/default", "1")
        keep(store, "a", "onnxruntime", "2")
        keep(store, "a", "litert/default", "3")
        keep(store, "b", "litert/default", "4")
        found = store.fingerprints()
        told = [(f.device, f.configuration, f.sha256) for f in found]
        assert told == [
            ("a", "litert/default", "3"),
            ("a", "onnxruntime", "2"),
            ("b", "litert/default", "4"),
        ]
        every = [f.sha256 for f in store.fingerprints(every=True)]
        assert every == ["3", "2", "4", "1"]
        assert found[0].document == {"sha256": "3", "families": {}}
        assert store.environment_data(found[0].environment) == FACTS
        with glance(tmp_path) as reader:
            assert reader.fingerprints() == found


def test_one_of_an_unknown_device_is_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, pytest.raises(InfraError, match="E-STORE"):
        keep(store, "nobody", "onnxruntime", "1")


def test_a_store_without_any_has_none(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        assert store.fingerprints() == []
