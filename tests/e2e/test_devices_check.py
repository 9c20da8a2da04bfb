"""`assay devices check`, `facts` and `scan` on devices that are right, wrong, silent or in use."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from orchestrator.transports import LocalSettings, open_transport
from tests.support import sshd
from tests.support.cli import REPO, Done, assay, start, until
from tests.support.tiny import Tiny

SCHEMA = json.loads((REPO / "orchestrator/reports/schema/check-2.json").read_text())
CODES = {"ok": 0, "bad": 3, "unknown": 5}
LAB = ("-i", REPO / "matrices" / "inventories" / "lab.yaml")


NO_PYTHON = "/no/such/python"
PYTHON_ERROR = {f"python {NO_PYTHON}": "E-DEVICE-PYTHON"}
"""Where no worker can be started, everything else is still checked, and quickly."""


class Bench:
    """Devices, checked by the real command."""

    def __init__(self, tiny: Tiny, store: Path) -> None:
        self.tiny, self.store = tiny, store
        tiny.devices.clear()

    def add(self, name: str, **changes: Any) -> None:
        self.tiny.devices.append(self.tiny.device(name, **changes))

    def write(self) -> Path:
        return self.tiny.write().with_name("inventory.yaml")

    def check(self, *arguments: str | Path, env: dict[str, str] | None = None) -> Done:
        """Without the contract suite unless the arguments ask for it."""
        quick = () if "--contract" in arguments else ("--quick",)
        given = ("devices", "check", *arguments, *quick, "-i", self.write())
        return assay(*given, store=self.store, env=env)

    def items(self, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
        """Items of the one device by name, from JSON that follows its schema."""
        done = self.check(*arguments, "--json", env=env)
        jsonschema.validate(done.json, SCHEMA)
        (device,) = done.json["devices"]
        assert done.code == CODES[device["state"]], done
        assert len({item["name"] for item in device["items"]}) == len(device["items"])
        for item in device["items"]:
            assert "\n" not in item["finding"]
        return {item["name"]: item for item in device["items"]}


def wrong(items: dict[str, Any]) -> dict[str, str | None]:
    return {name: item["error"] for name, item in items.items() if item["state"] == "bad"}


@pytest.fixture
def bench(tiny: Tiny, store: Path) -> Bench:
    return Bench(tiny, store)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[sshd.Sshd]:
    if sshd.MISSING:
        pytest.skip(sshd.MISSING)
    with sshd.running(tmp_path / "sshd") as running:
        yield running


def script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_healthy_board_over_ssh(bench: Bench, server: sshd.Sshd) -> None:
    python = {"default": sys.executable}
    bench.add("board", transport=server.settings().model_dump(), python=python)
    found = bench.items("--contract")
    assert wrong(found) == {}
    for name in ("reachable", "clock", "lease", "inference onnxruntime", "inference litert"):
        assert found[name]["state"] == "ok", found[name]
    assert found["transport contract"]["finding"].endswith("checks hold")
    assert not bench.store.exists(), "checking makes no store"


def test_a_host_key_that_nobody_vouched_for(bench: Bench, server: sshd.Sshd) -> None:
    settings = server.settings(known_hosts=str(server.folder / "none")).model_dump()
    bench.add("board", transport=settings)
    assert wrong(bench.items()) == {"reachable": "E-SSH-HOSTKEY-UNKNOWN"}
    text = bench.check().out
    assert "✗ reachable" in text
    assert "fix: " in text
    assert "assay devices trust board" in text


def test_what_is_wrong_with_a_python_is_said_and_the_rest_is_checked(
    bench: Bench, tmp_path: Path
) -> None:
    bare = script(tmp_path / "bin" / "bare", f'exec {sys.executable} -S -I "$@"')
    # What a Python 3.8 comes to when it is given the worker (device_worker.__main__).
    old = script(
        tmp_path / "bin" / "old",
        'echo "assay worker: Python 3.8.10 is too old, 3.9 is needed [E-PYTHON-OLD]" >&2; exit 78',
    )
    bench.add(
        "board",
        python={
            "default": sys.executable,
            "litert": NO_PYTHON,
            "onnxruntime": bare,
            "tflite-runtime": old,
        },
    )
    found = bench.items()
    assert wrong(found) == {
        **PYTHON_ERROR,
        f"python {bare}": "E-NUMPY-MISSING",
        f"python {old}": "E-PYTHON-OLD",
        "runtime onnxruntime": "E-RUNTIME-MISSING",
    }
    assert found[f"python {sys.executable}"]["state"] == "ok"
    assert found["runtime litert"]["state"] == "unknown"
    assert "lease" in found


def test_who_it_is_and_what_it_shows(bench: Bench, tmp_path: Path) -> None:
    machine = os.uname().machine
    classes = bench.tiny.folder / "classes"
    classes.mkdir(parents=True)
    source = {"parser": "thermal_zones", "path": [str(tmp_path / "zone*" / "temp")]}
    (classes / "product.yaml").write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "name": "product",
                "title": "A product",
                "like": "generic",
                "recognise": [{"fact": "machine", "is": "another-machine"}],
                "telemetry": [source],
                "thermal": {"max_start_c": 50},
                "delegates": ["edgetpu"],
                "runtimes": ["onnxruntime"],
            }
        )
    )
    bench.add("board", like="product", identity={"machine": "vax"}, python={"default": NO_PYTHON})
    found = bench.items()
    assert wrong(found) == {
        "identity": "E-DEVICE-IDENTITY",
        "class": "E-DEVICE-IDENTITY",
        "delegate edgetpu": None,
        **PYTHON_ERROR,
    }
    assert f"{machine}, not vax" in found["identity"]["finding"]
    assert found["sensors"]["state"] == found["idle temperature"]["state"] == "unknown"

    zone = tmp_path / "zone0"
    zone.mkdir()
    (zone / "temp").write_text("51000\n")
    assert "idle temperature" in wrong(bench.items())
    (zone / "temp").write_text("49000\n")
    assert bench.items()["idle temperature"]["state"] == "ok"


def test_a_delegate_that_is_not_there(bench: Bench) -> None:
    bench.add("board", delegates={"edgetpu": {"library": "libno-such-delegate.so.1"}})
    assert wrong(bench.items()) == {"delegate edgetpu": "E-DELEGATE-LIBRARY"}


def test_a_clock_that_is_off_and_a_disk_that_is_full(bench: Bench, tmp_path: Path) -> None:
    script(tmp_path / "bin" / "date", "echo 1000000000")
    script(
        tmp_path / "bin" / "df",
        'printf "Filesystem 1024-blocks Used Available Capacity Mount\\n/dev/x 9 9 1024 9%% /\\n"',
    )
    bench.add("board", python={"default": NO_PYTHON})
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    found = wrong(bench.items(env=env))
    assert found == {"clock": None, "disk": "E-DISK-FULL", **PYTHON_ERROR}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "drop", "on": "run", "times": None}, "E-LINK"),
        ({"kind": "drop", "on": "run", "after": 2, "times": None}, "E-LINK"),
        ({"kind": "disk_full", "on": "push", "times": None}, "E-DISK-FULL"),
        ({"kind": "garbage", "on": "read", "times": None}, "E-WORKER-GARBAGE"),
    ],
    ids=["dead", "dies on the way", "full", "noise"],
)
def test_trouble_on_the_way_is_an_item(bench: Bench, fault: dict[str, Any], error: str) -> None:
    bench.tiny.devices.append(bench.tiny.fake("board", fault))
    assert error in wrong(bench.items()).values()


def test_a_device_that_is_only_slow_is_well(bench: Bench) -> None:
    slow = {"kind": "slow", "on": "run", "times": None, "seconds": 0.2}
    bench.tiny.devices.append(bench.tiny.fake("board", slow))
    assert wrong(bench.items()) == {}


def test_one_that_hangs_holds_nobody_up(bench: Bench) -> None:
    stall = {"kind": "stall", "on": "run", "times": None}
    bench.tiny.devices.append(bench.tiny.fake("hangs", stall))
    bench.add("well")
    done = bench.check("--json", "--timeout", "10")
    assert done.code == 3
    hangs, well = done.json["devices"]
    assert [item["error"] for item in hangs["items"]] == ["E-DEADLINE"]
    assert well["state"] in ("ok", "unknown")


def test_a_device_that_a_coordinator_uses_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    bench.add("board")
    with Store.open(bench.store) as store:
        store.upsert_device("board", "class-board", False, {})
        lease = store.acquire_lease("board", this_process())
        assert lease is not None
        done = bench.check("--json")
        assert done.code == 5
        (device,) = done.json["devices"]
        assert device["items"] == []
        assert f"pid {os.getpid()}" in device["in_use"]
        assert not bench.tiny.root("board").exists()
        store.release(lease)
    assert wrong(bench.items()) == {}
    with Store.open(bench.store) as store:
        assert store.leases() == []


def test_a_device_that_another_farm_uses_is_only_looked_at(bench: Bench) -> None:
    bench.add("board")
    root = bench.tiny.root("board")
    transport = open_transport(LocalSettings(root=str(root)), device="board")
    with DeviceSession(
        transport, device="board", owner="other farm", token=1, limits=Limits(60, 60)
    ) as session:
        worker = session.worker(sys.executable)
        worker.ask("noop", timeout=60)
        found = bench.items("--contract")
        assert worker.ping(30) < 30
        told = assay(
            "devices", "facts", "board", "--json", "-i", bench.write(), store=bench.store
        ).json
    assert wrong(found) == {}
    assert (found["lease"]["state"], found["lease"]["error"]) == ("unknown", "E-LEASE-HELD")
    assert "other farm" in found["lease"]["finding"]
    assert not {"transport contract", "runtime onnxruntime"} & set(found)
    assert "in use by other farm" in told["workers"][sys.executable]["error"]


def test_a_device_behind_a_hub_is_checked_there(bench: Bench) -> None:
    bench.add("board", hub="lab-2", python={"default": NO_PYTHON})
    assert bench.items()["reachable"]["state"] == "unknown"
    assert bench.items("--hub", "lab-2")["reachable"]["state"] == "ok"


def test_another_unit_under_an_old_name(bench: Bench) -> None:
    bench.add("board", python={"default": NO_PYTHON})
    with Store.open(bench.store) as store:
        store.upsert_device("board", "class-board", False, {"os": "kept"})
    assert bench.items()["same unit"]["state"] == "none"
    assert bench.items()["same unit"]["state"] == "ok"
    with Store.open(bench.store) as store:
        (device,) = store.devices()
        assert device.identity["os"] == "kept"
        seen = {**device.identity["checked"], "machine": "vax"}
        store.upsert_device("board", "class-board", False, {"checked": seen})
    for _ in range(2):
        assert wrong(bench.items()) == {"same unit": "E-DEVICE-IDENTITY", **PYTHON_ERROR}
    assert wrong(bench.items("--accept")) == PYTHON_ERROR
    assert bench.items()["same unit"]["state"] == "ok"


def test_ctrl_c_gives_everything_back(bench: Bench) -> None:
    bench.tiny.devices.append(
        bench.tiny.fake("hangs", {"kind": "stall", "on": "run", "after": 1, "times": None})
    )
    with Store.open(bench.store) as store:
        store.upsert_device("hangs", "class-hangs", False, {})
        running = start("devices", "check", "-i", bench.write(), store=bench.store)
        until(store.leases, "the check holds the device")
        running.interrupt()
        done = running.wait()
        assert (done.code, done.err) == (130, "assay: interrupted\n")
        assert store.leases() == []


def test_names_that_there_are_not(bench: Bench) -> None:
    bench.add("board")
    for command in (("check", "bord"), ("facts", "bord")):
        done = assay("devices", *command, "-i", bench.write(), store=bench.store)
        done.refused(2, "E-DEVICE-NAME", "known: board")
    assay("devices", "scan").refused(2, "E-USAGE", "--adb")
    assay("devices", "scan", "--range", "10.0.0.0/8").refused(2, "E-SCAN-RANGE")


def test_facts(bench: Bench) -> None:
    bench.add("board", python={"default": sys.executable, "litert": "/no/such/python"})
    facts = ("devices", "facts", "board", "-i", bench.write())
    told = assay(*facts, "--json", store=bench.store).json
    assert told["schema"] == "assay.facts/1"
    assert told["facts"]["machine"] == {"value": os.uname().machine, "source": "uname -srm"}
    assert told["workers"][sys.executable]["runtimes"]["litert"]["version"]
    assert told["workers"]["/no/such/python"]["id"] == "E-DEVICE-PYTHON"
    text = assay(*facts, store=bench.store).out
    assert os.uname().machine in text
    assert "E-DEVICE-PYTHON" in text


def test_a_scan_of_loopback(tmp_path: Path, server: sshd.Sshd) -> None:
    scan = (
        *("devices", "scan", "--range", "127.0.0.0/30", "--port", str(server.port)),
        *("--user", "root", "--key", str(server.folder / "client_key")),
        *("--known-hosts", str(server.folder / "known_hosts")),
    )
    done = assay(*scan, cwd=tmp_path)
    assert done.code == 0
    (entry,) = yaml.safe_load(done.out)["devices"]
    assert entry["transport"]["host"] == "127.0.0.1"
    found = assay(*scan, "--json", cwd=tmp_path).json
    assert (found["schema"], found["addresses"]) == ("assay.scan/1", 2)
    assert [one["address"] for one in found["found"]] == [f"127.0.0.1:{server.port}"]
    assert not list(tmp_path.glob("*.yaml"))


@pytest.mark.farm
def test_a_sound_board_and_a_defective_one(store: Path) -> None:
    done = assay(
        "devices",
        "check",
        "qemu-a76",
        "qemu-badboard",
        "--quick",
        "--json",
        *LAB,
        store=store,
        timeout=280,
    )
    jsonschema.validate(done.json, SCHEMA)
    sound, defective = (
        {item["name"]: item for item in device["items"]} for device in done.json["devices"]
    )
    if "E-LEASE-HELD" in (sound["lease"]["error"], defective["lease"]["error"]):
        pytest.skip("another farm uses the boards just now")
    assert wrong(sound) == {}
    assert sound["board file"]["finding"] == "qemu-a76, emulated"
    assert sound["sensors"]["state"] == sound["governor"]["state"] == "ok"
    assert list(wrong(defective)) == ["inference litert"]
    assert done.code == 3


@pytest.mark.phone
def test_a_phone(store: Path) -> None:
    checked = assay(
        "devices", "check", "qemu-phone", "--quick", "--json", *LAB, store=store, timeout=280
    )
    jsonschema.validate(checked.json, SCHEMA)
    (device,) = checked.json["devices"]
    found = {item["name"]: item for item in device["items"]}
    for name in ("reachable", "board file", "class", "clock", "sensors", "throttling"):
        assert found[name]["state"] == "ok", found[name]
