"""Which marked tests can run on this machine; those that cannot are skipped, counted, explained.

``farm``: `ASSAY_FARM=0` says no, `ASSAY_FARM=1` says that the boards are up, so a silent one is a
failure and not a skip; without it the boards are asked. ``phone``: the same with `ASSAY_PHONE`.
``realmodels``: $ASSAY_REALMODELS.
``adbd``: Debian's adbd for this machine, fetched once.
``isa``: asks a CPU of either kind of int8 arithmetic; `tests.support.isa` says which can be shown.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from infra.virtual_farm.board import answers
from infra.virtual_farm.config import load_definitions
from tests.support import isa
from tests.support.clock import Clock

# How long an example takes says how busy the machine is.
settings.register_profile("assay", deadline=None)
settings.load_profile("assay")

REPO = Path(__file__).resolve().parents[1]
BOARDS = REPO / "matrices" / "inventories" / "lab.yaml"
NAMES = {
    "farm": "virtual boards",
    "phone": "emulated phone",
    "realmodels": "real models",
    "adbd": "real adbd",
    "isa": "the other kind of CPU",
}


def pytest_configure() -> None:
    """Give this process the usual reaction to SIGINT and SIGHUP, which tests send.

    A shell's background job starts with the one ignored, a child of nohup with the other, and hands
    that on.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@functools.cache
def farm_trouble() -> str | None:
    """Why tests on the virtual boards cannot run, None where they can."""
    wish = os.environ.get("ASSAY_FARM")
    if wish is not None:
        return "ASSAY_FARM=0" if wish == "0" else None
    devices = yaml.safe_load(BOARDS.read_text())["devices"]
    boards = [d for d in devices if d["transport"]["type"] == "ssh"]
    silent = [d["name"] for d in boards if not _greets(d["transport"])]
    return f"no answer from {', '.join(silent)} (make farm)" if silent else None


@functools.cache
def phone_trouble() -> str | None:
    """Why tests on the emulated phone cannot run, None where they can."""
    wish = os.environ.get("ASSAY_PHONE")
    if wish == "0":
        return "ASSAY_PHONE=0"
    if shutil.which("adb") is None:
        return "adb is not installed"
    phone = load_definitions().boards["qemu-phone"]
    if wish is None and not answers(phone):
        return "no answer from qemu-phone (make farm)"
    return None


def realmodels_trouble() -> str | None:
    """Why tests on real models cannot run, None where they can."""
    folder = os.environ.get("ASSAY_REALMODELS")
    if not folder:
        return "$ASSAY_REALMODELS is not set"
    return None if Path(folder).is_dir() else f"$ASSAY_REALMODELS: no folder {folder}"


def adbd_trouble() -> str | None:
    """Why tests on a real adbd cannot run, None where they can."""
    from tests.support import adbd  # fetches: only where such a test was chosen

    return adbd.trouble()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that deadlines are measured by in this process."""
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


@pytest.fixture(scope="session", params=isa.KINDS)
def core(request: pytest.FixtureRequest) -> isa.Core:
    """A CPU of each kind of int8 arithmetic in turn; what this machine cannot show is skipped."""
    found = isa.core(request.param)
    if found.trouble is not None:
        pytest.skip(f"{found.kind}: {found.trouble}")
    return found


def _greets(address: dict[str, object]) -> bool:
    """Whether an SSH server says its first line there."""
    try:
        with socket.create_connection((str(address["host"]), int(str(address["port"]))), 5) as link:
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


@pytest.hookimpl(trylast=True)  # after -k and -m have taken theirs away
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    troubles: dict[str, Callable[[], str | None]] = {
        "farm": farm_trouble,
        "phone": phone_trouble,
        "realmodels": realmodels_trouble,
        "adbd": adbd_trouble,
    }
    for mark, trouble in troubles.items():
        marked = [item for item in items if item.get_closest_marker(mark)]
        reason = trouble() if marked else None
        if reason is not None:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=f"{NAMES[mark]}: {reason}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for mark, name in NAMES.items():
        skipped = [r for r in terminalreporter.stats.get("skipped", []) if mark in r.keywords]
        if not skipped:
            continue
        reasons = Counter(
            str(r.longrepr[2] if isinstance(r.longrepr, tuple) else r.longrepr).removeprefix(
                "Skipped: "
            )
            for r in skipped
        )
        said = "; ".join(f"{count} for {reason}" for reason, count in sorted(reasons.items()))
        terminalreporter.write_line(f"{name}: skipped {len(skipped)} ({said})", yellow=True)
