"""`assay devices trust` against a real sshd."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import sshd
from tests.support.cli import ASSAY, assay
from tests.support.tiny import Tiny


@pytest.fixture
def server(tmp_path: Path) -> Iterator[sshd.Sshd]:
    if sshd.MISSING:
        pytest.skip(sshd.MISSING)
    with sshd.running(tmp_path / "sshd") as running:
        yield running


def test_devices_trust(tiny: Tiny, store: Path, tmp_path: Path, server: sshd.Sshd) -> None:
    hosts = tmp_path / "known_hosts"
    settings = server.settings(known_hosts=str(hosts))
    tiny.devices.append(
        tiny.device("board", transport=settings.model_dump(), python={"default": sys.executable})
    )
    matrix = tiny.write()
    trust = ("devices", "trust", "board", "-i", matrix.with_name("inventory.yaml"))
    shown = subprocess.run(
        ["ssh-keygen", "-lf", server.folder / "host_key.pub"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[1]

    nobody_answers = assay(*trust)
    assert nobody_answers.code == 2
    assert shown in nobody_answers.out
    assert nobody_answers.err.splitlines()[-1].endswith("[E-TRUST-REFUSED]")
    assert not hosts.exists()
    for answer, code in (("n\n", 2), ("y\n", 0)):
        asked = subprocess.run(
            [ASSAY, *map(str, trust)], input=answer, text=True, capture_output=True, timeout=60
        )
        assert (asked.returncode, hosts.exists()) == (code, code == 0), asked
    assert assay("run", matrix, "--select", "board-*", "--json", store=store).json["coverage"]["ok"]
    before = hosts.read_text()
    again = assay(*trust)
    assert again.code == 0
    assert "trusted already" in again.out
    told = assay(*trust, "--json")
    key = {"of": "board", "algorithm": "ssh-ed25519", "fingerprint": shown, "was": "known"}
    assert told.json["schema"] == "assay.trust/1"
    assert told.json["device"] == "board"
    assert [k.items() >= key.items() for k in told.json["keys"]] == [True], told.json
    assert shown in told.err, "the question is about what was shown before it"

    # Another key now answers at that address.
    sshd.keygen(tmp_path / "other")
    stranger = (tmp_path / "other.pub").read_text().rsplit(" ", 1)[0]
    hosts.write_text(f"[127.0.0.1]:{server.port} {stranger}\n")
    changed = assay(*trust, "--yes")
    assert changed.code == 3
    assert "[E-SSH-HOSTKEY]" in changed.err
    assert "--replace" in changed.err
    assert stranger in hosts.read_text()
    assert assay(*trust, "--replace").code == 2  # it asks all the same
    refused = assay(*trust, "--json", "--replace")
    assert (refused.code, refused.out.strip()) == (2, "")
    replaced = assay(*trust, "--yes", "--replace", "--json").json
    assert [(k["fingerprint"], k["was"]) for k in replaced["keys"]] == [(shown, "changed")]
    assert hosts.read_text() == before
