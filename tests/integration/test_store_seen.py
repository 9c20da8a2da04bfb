"""How often it is written down that a device was seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store import database
from orchestrator.store.database import Store


def test_a_device_seen_again_is_written_when_something_changed_or_time_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("orchestrator.store.database.time.time", lambda: now)
    with Store.open(tmp_path) as store:

        def seen(identity: dict[str, str]) -> tuple[float, dict[str, str]]:
            store.upsert_device("pi", "rpi4", False, identity)
            (device,) = store.devices()
            assert device.first_seen == 1000.0
            return device.last_seen, device.identity

        assert seen({"os": "a"}) == (1000.0, {"os": "a"})
        now = 1001.0
        assert seen({"os": "a"}) == (1000.0, {"os": "a"})
        assert seen({"os": "b"}) == (1001.0, {"os": "b"})
        now = 1001.0 + database.SEEN_S
        assert seen({"os": "b"}) == (1001.0 + database.SEEN_S, {"os": "b"})
        now = 900.0  # the coordinator's clock was put back
        assert seen({"os": "b"}) == (900.0, {"os": "b"})


def test_what_one_does_not_know_of_a_device_stays_as_another_told_it(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.upsert_device("pi", "rpi4", False, {"os": "a", "checked": {"serial": "1"}})
        store.upsert_device("pi", "rpi4", False, {"os": "b", "board": None})
        (device,) = store.devices()
    assert device.identity == {"os": "b", "board": None, "checked": {"serial": "1"}}
