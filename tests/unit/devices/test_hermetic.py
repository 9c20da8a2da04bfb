"""A hermetic bundle on a device: whole or not at all, brought once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.devices.bundle import BundleFile, find_bundle
from orchestrator.devices.hermetic import bring
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.errors import InfraError, InputError
from orchestrator.transports import open_transport
from orchestrator.transports.base import Transport
from orchestrator.transports.settings import FakeSettings, Fault, LocalSettings
from tests.support.hermetic import small


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "device with a space"


@pytest.fixture
def bundle(tmp_path: Path) -> BundleFile:
    return small(tmp_path, python=sys.executable)


def device(root: Path, *faults: Fault) -> Transport:
    settings = FakeSettings(root=str(root), faults=list(faults)) if faults else None
    return open_transport(settings or LocalSettings(root=str(root)), device="d")


def installed(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "bundles").iterdir())


def test_brought_once(root: Path, bundle: BundleFile) -> None:
    with device(root) as transport:
        first = bring(transport, bundle, device="d")
        assert first.pushed == bundle.size
        assert installed(root) == [bundle.sha256[:16]]
        said = subprocess.run(
            ["sh", str(first.python), "-c", "print(6 * 7)"],
            capture_output=True,
            text=True,
            check=True,
            cwd="/",
        )
        assert said.stdout == "42\n"
        assert bring(transport, bundle, device="d") == (first.python, 0)


@pytest.mark.parametrize("spoil", ["cut", "changed"])
def test_another_archive_is_not_unpacked(root: Path, bundle: BundleFile, spoil: str) -> None:
    path = Path(bundle.path)
    data = path.read_bytes()
    path.write_bytes(data[:-20] if spoil == "cut" else data[:40] + b"!" + data[41:])
    with device(root) as transport, pytest.raises(InfraError) as caught:
        bring(transport, bundle, device="d")
    assert (caught.value.id, caught.value.retryable) == ("E-BUNDLE-HASH", True)
    assert "\n" not in str(caught.value)
    assert installed(root) == []


def test_an_archive_that_is_none_is_taken_away_again(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"no archive at all")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with device(root) as transport, pytest.raises(InfraError, match="E-BUNDLE-UNPACK"):
        bring(transport, BundleFile("x", sha256, 17, str(path)), device="d")
    assert installed(root) == []


def test_what_a_cut_off_bring_up_left_is_done_again(root: Path, bundle: BundleFile) -> None:
    left = root / "bundles" / f"{bundle.sha256[:16]}.new"
    (left / "half").mkdir(parents=True)
    unmarked = root / "bundles" / bundle.sha256[:16]
    unmarked.mkdir()
    with device(root) as transport:
        assert bring(transport, bundle, device="d").pushed
    assert installed(root) == [bundle.sha256[:16]]
    assert (unmarked / "lib" / "data.txt").is_file()


def test_a_link_that_drops_leaves_nothing_that_counts(root: Path, bundle: BundleFile) -> None:
    with device(root, Fault(kind="drop", on="push")) as transport, pytest.raises(InfraError):
        bring(transport, bundle, device="d")
    with device(root) as transport:
        assert bring(transport, bundle, device="d").pushed == bundle.size


def test_what_changes_on_its_way_is_noticed_on_the_device(root: Path, bundle: BundleFile) -> None:
    with device(root, Fault(kind="corrupt", on="push")) as transport:
        with pytest.raises(InfraError) as caught:
            bring(transport, bundle, device="d")
        assert caught.value.id in ("E-BUNDLE-HASH", "E-TRANSFER")
        assert installed(root) == []
        assert bring(transport, bundle, device="d").pushed == bundle.size


def test_a_new_version_takes_the_place_of_the_old_and_of_no_other(
    root: Path, tmp_path: Path, bundle: BundleFile
) -> None:
    other = small(tmp_path, name="other")
    newer = small(tmp_path, python=sys.executable, say="newer")
    with device(root) as transport:
        for each in (bundle, other, newer):
            bring(transport, each, device="d")
    assert installed(root) == sorted(b.sha256[:16] for b in (other, newer))


def test_a_launcher_finds_another_shell(root: Path, bundle: BundleFile) -> None:
    """Android has its own at another place, and /bin/sh only since a few versions."""
    with device(root) as transport:
        python = bring(transport, bundle, device="d", shell="/nonexistent/sh").python
    first = Path(python).read_text().splitlines()[0]
    assert first not in ("#!/bin/sh", "#!")
    done = subprocess.run([str(python), "-c", "print(6 * 7)"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("42\n", "")


def test_a_worker_under_a_bundle(root: Path, bundle: BundleFile) -> None:
    limits = Limits(60.0, 30.0)
    for token, pushes in ((1, True), (2, False)):
        transport = device(root)
        with DeviceSession(transport, device="d", owner="o", token=token, limits=limits) as session:
            worker = session.worker("bundle:small", {}, bundle)
            assert worker.ask("noop", timeout=30)["type"] == "done"
            assert session.worker("bundle:small", {}, bundle) is worker
            assert (session.bytes_pushed >= bundle.size) is pushes
            assert pushes or session.bytes_pushed == 0


def test_the_newest_built_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_BUNDLES", str(tmp_path))
    made = small(tmp_path, say="one")
    assert find_bundle("small") == made
    newer = small(tmp_path, say="two")
    assert find_bundle("small") == newer


@pytest.mark.parametrize("spoil", ["nothing", "manifest", "archive", "short"])
def test_one_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    monkeypatch.setenv("ASSAY_BUNDLES", str(tmp_path))
    if spoil != "nothing":
        made = small(tmp_path)
        if spoil == "manifest":
            (tmp_path / "small.json").write_text("{}")
        elif spoil == "archive":
            Path(made.path).unlink()
        else:
            Path(made.path).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        find_bundle("small")
    assert caught.value.id == "E-BUNDLE-MISSING"
    assert "python -m infra.bundles build small" in str(caught.value)
