"""A phone in trouble while it works: the right outcome, no lease kept, and the run completes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from infra.bundles import build as bundles
from infra.virtual_farm import adbclient, farm
from infra.virtual_farm.board import answers
from infra.virtual_farm.config import load_definitions
from orchestrator.store.database import Store
from tests.support.cli import REPO, Done, assay, start, until

pytestmark = [pytest.mark.phone, pytest.mark.timeout(900)]

PHONE = load_definitions().boards["qemu-phone"]
ROOT, BALLAST = "/data/local/tmp/assay-trouble", "/data/local/tmp/ballast"
GONE = ("E-LINK", "E-ADB-OFFLINE", "E-ADB-CONNECT", "E-ADB-ABSENT")
QUICKSTART = REPO / "matrices" / "quickstart"


@pytest.fixture(scope="module", autouse=True)
def _bundle() -> None:
    bundles.ensure("aarch64-litert")


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    on_phone(f"rm -rf {ROOT}")


@pytest.fixture(autouse=True)
def _left_as_it_was() -> Iterator[None]:
    """But for the bundle, which is long in coming."""
    yield
    drive("cable=auto", "adbd=auto")
    until(lambda: answers(PHONE), "the phone answers again", 60)
    on_phone(f"rm -rf {BALLAST}; cd {ROOT} && for f in *; do [ $f = bundles ] || rm -rf $f; done")


def on_phone(command: str, timeout: float = 60.0) -> str:
    return adbclient.shell(PHONE.address, PHONE.port, command, timeout)


def drive(*settings: str) -> None:
    assert farm.main(["set", PHONE.name, *settings]) == 0


def matrix(folder: Path) -> Path:
    """The phone and this machine, one INT8 file, three runtime configurations."""
    folder.mkdir(parents=True, exist_ok=True)
    phone = {
        "name": PHONE.name,
        "class": PHONE.name,
        "like": "android-arm64",
        "transport": {
            "type": "adb",
            "serial": f"{PHONE.address}:{PHONE.port}",
            "root": ROOT,
            "connect_timeout": 15.0,
        },
        "python": {"litert": "bundle:aarch64-litert"},
    }
    host = {
        "name": "host",
        "class": "host",
        "transport": {"type": "local", "root": str(folder / "host")},
        "python": {"default": "${PYTHON}"},
    }
    (folder / "inventory.yaml").write_text(yaml.safe_dump({"version": 1, "devices": [phone, host]}))
    content = {
        "version": 1,
        "name": "phone-trouble",
        "inventory": "inventory.yaml",
        "models": [
            {
                "name": "digits_cnn",
                "task": {"type": "classification"},
                "inputs": "digits8",
                "files": [
                    {"name": "int8", "path": str(QUICKSTART / "models/digits_cnn.int8.tflite")}
                ],
            }
        ],
        "inputs": [
            {
                "name": "digits8",
                "type": "npz",
                "path": str(QUICKSTART / "digits_8x8.npz"),
                "array": "x",
                "labels": "y",
            }
        ],
        "devices": [{"name": "host"}, {"name": PHONE.name}],
        "runtimes": [{"name": f"litert{n}", "runtime": "litert", "threads": n} for n in (1, 2, 3)],
        "conditions": ["repeat:40"],
        "repeat_samples": 400,
        "retry": {"infra": 3},
        "timeouts": {"cell": "5m", "silence": "20s"},
    }
    path = folder / "matrix.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class Run:
    """A run of the matrix, and what befalls the phone as soon as it is at work on a cell."""

    def __init__(self, folder: Path, trouble: Callable[[], None]) -> None:
        self.store = folder / "store"
        running = start("run", matrix(folder), "--json", store=self.store)
        try:
            until(_at_work, "the phone works on a cell", 240)
            time.sleep(1.0)
            trouble()
        finally:
            self.done: Done = running.wait(600)
        self.attempts = [a for a in self.done.json["attempts"] if a["device"] == PHONE.name]
        self.coverage = self.done.json["coverage"]

    def check(self, *ids: str) -> None:
        """Every cell was counted in the end; the phone's failed attempts have these IDs."""
        assert self.done.code in (0, 5), (self.done.code, self.done.err[-2000:])
        assert self.coverage["ok"] == self.coverage["planned"] == 6
        failed = [(a["outcome"], a["error_id"]) for a in self.attempts if a["outcome"] != "ok"]
        assert failed, "the trouble was not noticed"
        assert all(outcome == "infra_error" for outcome, _ in failed), failed
        assert {id for _, id in failed} <= set(ids), failed
        with Store.open(self.store, readonly=True) as opened:
            assert opened.leases() == []


def _at_work() -> bool:
    """Inference itself, not the bringing of 30 MB of Python."""
    try:
        said = on_phone(f"ls {ROOT}/out")
    except (OSError, ValueError):
        return False
    return "No such file" not in said and bool(said.strip())


def test_full_storage_ends_the_phones_cells_and_nobody_elses(tmp_path: Path) -> None:
    on_phone(f"rm -rf {ROOT}")
    fill()
    done = assay("run", matrix(tmp_path), "--json", store=tmp_path / "store", timeout=600)
    assert done.code == 3, done.err
    mine = [a for a in done.json["attempts"] if a["device"] == PHONE.name]
    assert {(a["outcome"], a["error_id"]) for a in mine} == {("infra_error", "E-DISK-FULL")}
    assert all(a["outcome"] == "ok" for a in done.json["attempts"] if a["device"] == "host")
    left = on_phone(f"find {ROOT} -type f")
    assert ".so" not in left, "half a bundle was left unpacked"
    with Store.open(tmp_path / "store", readonly=True) as opened:
        assert opened.leases() == []


def test_a_cable_pulled_and_put_back(tmp_path: Path) -> None:
    def trouble() -> None:
        drive("cable=0")
        threading.Timer(30.0, drive, ["cable=1"]).start()

    Run(tmp_path, trouble).check(*GONE)


def test_an_adbd_that_is_killed(tmp_path: Path) -> None:
    Run(tmp_path, kick).check(*GONE)


def kick() -> None:
    assert farm.main(["kick", PHONE.name]) == 0


def test_storage_that_fills_up_while_it_works(tmp_path: Path) -> None:
    """What it cannot write down any more is no answer; once there is room, it is as good as new."""
    run = Run(tmp_path, fill)
    assert run.done.code == 3, (run.done.code, run.done.err[-2000:])
    failed = {(a["outcome"], a["error_id"]) for a in run.attempts if a["outcome"] != "ok"}
    assert failed == {("infra_error", "E-DISK-FULL")}
    assert all(a["outcome"] == "ok" for a in run.done.json["attempts"] if a["device"] == "host")
    with Store.open(run.store, readonly=True) as opened:
        assert opened.leases() == []
    on_phone(f"rm {BALLAST}")
    again = assay("run", tmp_path / "matrix.yaml", "--json", store=run.store, timeout=600)
    assert again.json["coverage"]["ok"] == again.json["coverage"]["planned"] == 6, again.err


def fill() -> None:
    on_phone(f"cat /dev/zero > {BALLAST}", 120)
