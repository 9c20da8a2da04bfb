"""`assay pack`, run.sh by hand, `assay ingest`: on this machine, and on a board (marker farm)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.store.database import Store
from orchestrator.store.records import AttemptInfo
from tests.support import offline
from tests.support.cli import REPO, Done, assay, start, until
from tests.support.tiny import Tiny

INVENTORY = REPO / "matrices" / "inventories" / "lab.yaml"


def submitted(tiny: Tiny, store: Path) -> str:
    done = assay("submit", tiny.write(), store=store)
    assert done.code == 0, done.err
    return done.out.strip()


def packed(run: str, store: Path, out: Path, *arguments: str) -> Path:
    done = assay("pack", run, "--cells", "*", "--out", out, *arguments, store=store)
    assert done.code == 0, done.err
    archive = Path(done.out.strip())
    assert archive.parent == out
    return archive


def attempts(store: Path, run: str) -> dict[str, AttemptInfo]:
    with Store.open(store, readonly=True) as opened:
        return {a.cell: a for a in opened.attempts(run) if a.state == "ok"}


def brought(attempt: AttemptInfo) -> Any:
    """What must not depend on how the device was reached: every output, every sample's hash."""
    result = attempt.result
    assert result is not None
    files = {r: b for r, b in attempt.artefacts.items() if r.startswith(("output", "sample"))}
    backend = {k: v for k, v in result["backend"].items() if k != "build_ns"}
    return (
        files,
        backend,
        [(o["name"], o["blob"], o["dtype"], o["shape"]) for o in result["outputs"]],
        (result["repeats"], result["model_sha256"], result["input_sha256"]),
        attempt.environment,
    )


def status(store: Path) -> Any:
    return assay("status", "--json", store=store).json


def test_from_pack_to_report(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    tiny.matrix["conditions"] = ["clean", "repeat:3"]
    online = assay("run", tiny.write(), "--json", store=store)
    assert online.code == 0, online.err
    run = submitted(tiny, store)
    archive = packed(run, store, tmp_path / "stick")
    assert archive.name.startswith(f"assay-pack-{run[:8]}-")
    (out,) = status(store)["packs"]
    assert (out["run"], out["device"], len(out["cells"])) == (run, "bench", 2)
    waits = assay("resume", run, store=store)
    last = waits.err.splitlines()[-1]
    assert (waits.code, waits.out, "[E-PACK-OUTSTANDING]" in last) == (5, "", True)
    assert "2 cells packed for bench, not ingested yet" in last
    assert assay("signoff", run, store=store).code == 5

    folder = offline.unpack(archive, tmp_path / "desk")
    done = offline.by_hand(folder)
    assert (done.returncode, done.stderr) == (0, "")
    result = offline.result_of(folder)
    assert done.stdout.splitlines()[-1] == f"result: {result}"

    ingested = assay("ingest", result, "--json", store=store)
    assert ingested.code == 0, ingested.err
    assert (ingested.json["run"], ingested.json["left"]) == (run, 0)
    assert ingested.json["not_compared"] == []
    assert status(store)["packs"] == []
    assay("ingest", result, store=store).refused(2, "E-INGEST-DUPLICATE")
    document = assay("resume", run, "--json", store=store)
    assert (document.code, document.json["verdict"]) == (0, "pass")
    assert {a["offline"] for a in document.json["attempts"]} == {True}
    assert "run by hand" in (store / "reports" / f"{run}.html").read_text()
    before, after = attempts(store, online.json["run"]["id"]), attempts(store, run)
    assert {c: brought(a) for c, a in after.items()} == {c: brought(a) for c, a in before.items()}
    logged = assay("logs", run, "--json", store=store).json["attempts"]
    assert [a["offline"] for a in logged] == [True, True]


def test_a_fact_that_nobody_could_compare_is_named(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    tiny.serial("1000000a").unlink()
    folder = offline.unpack(packed(submitted(tiny, store), store, tmp_path), tmp_path / "desk")
    assert offline.by_hand(folder).returncode == 0
    ingested = assay("ingest", offline.result_of(folder), store=store)
    assert ingested.code == 0, ingested.err
    assert "for the device does not tell it: serial" in ingested.out


def test_what_is_refused(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    def pack(*arguments: str | Path) -> Done:
        return assay("pack", *arguments, "--out", tmp_path / "o", store=store)

    pack("x", "--cells", "*").refused(2, "E-STORE-MISSING")
    assay("ingest", tmp_path / "none", store=store).refused(2, "E-STORE-MISSING")
    assert not store.exists()
    run = submitted(tiny, store)
    pack("nope", "--cells", "*").refused(2, "E-RUN-UNKNOWN")
    pack(run).refused(2, "E-USAGE", "--cells")
    pack(run, "--cells", "pi-*").refused(2, "E-PACK-CELLS", "pi-*")
    (tmp_path / "o").write_text("a file")
    pack(run, "--cells", "*").refused(2, "E-PACK-WRITE")
    assay("ingest", tmp_path / "o", store=store).refused(2, "E-INGEST-FORM")
    result = status(store)["runs"][0]
    assert (result["state"], result["cells"]["pending"]) == ("queued", 1)


def test_killed_meanwhile_and_taken_back(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """A coordinator that is killed while cells are out takes none of them with it."""
    tiny.matrix["conditions"] = ["clean", "repeat:20000"]
    run = submitted(tiny, store)
    done = assay("pack", run, "--cells", "*clean*", "--out", tmp_path, store=store)
    folder = offline.unpack(Path(done.out.strip()), tmp_path / "desk")
    running = start("resume", run, store=store)
    until(lambda: any(tiny.root().glob("out/*/*")), "a cell at work")
    running.interrupt(signal.SIGKILL)
    running.wait()
    assert offline.by_hand(folder).returncode == 0
    until(lambda: not any(tiny.root().glob("out/*/*")) or _dead(tiny), "the worker's end", 60)
    assert len(status(store)["packs"][0]["cells"]) == 1
    assert assay("ingest", offline.result_of(folder), store=store).code == 0
    document = assay("resume", run, "--json", store=store)
    assert document.code == 0, document.err
    assert document.json["coverage"]["ok"] == 2
    told = {a["cell"].rpartition("digits-")[2]: a for a in document.json["attempts"]}
    assert told["clean-ort"]["offline"]
    assert not told["repeat:20000-ort"]["offline"]

    again = submitted(tiny, store)
    packed(again, store, tmp_path / "back")
    back = assay("pack", "--cancel", again, store=store)
    assert (back.code, back.out) == (0, f"2 cells of {again} taken back\n")
    assert status(store)["runs"][0]["cells"]["pending"] == 2


def _dead(tiny: Tiny) -> bool:
    """The worker noticed that nobody listens any more; its files stay for the next lease."""
    time.sleep(0.2)
    return not any(str(tiny.root()).encode() in c for c in _commands())


def _commands() -> list[bytes]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return found


def test_pack_killed_before_its_archive_was_there(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """Whenever it is killed: the cells wait, or are out and can be taken back."""
    run = submitted(tiny, store)
    for delay in (0.5, 0.8, 1.0):
        running = start("pack", run, "--cells", "*", "--out", tmp_path / "out", store=store)
        try:
            running.process.wait(delay)
        except subprocess.TimeoutExpired:
            running.interrupt(signal.SIGKILL)
        running.wait()
        assert not [p for p in (tmp_path / "out").glob("assay-pack-*") if _broken(p)]
        if status(store)["packs"]:
            assert assay("pack", run, "--cancel", store=store).code == 0
        (now,) = status(store)["runs"]
        assert now["cells"] == {"pending": 1, "running": 0, "done": 0}


def _broken(archive: Path) -> bool:
    tested = ["tar", "-tzf", str(archive)]
    return subprocess.run(tested, capture_output=True, check=False).returncode != 0


# On a board ----------------------------------------------------------------------------------


class Board:
    """A board as somebody at its desk uses it: plain ssh and scp, nothing of Assay's."""

    def __init__(self, name: str) -> None:
        devices = yaml.safe_load(INVENTORY.read_text())["devices"]
        self.entry = next(d for d in devices if d["name"] == name)
        self._to = to = self.entry["transport"]
        self._options = [
            *("-i", str(Path(to["key"]).expanduser()), "-o", "BatchMode=yes"),
            *("-o", f"UserKnownHostsFile={Path(to['known_hosts']).expanduser()}"),
        ]

    @property
    def _where(self) -> str:
        return f"{self._to['user']}@{self._to['host']}"

    def run(self, command: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ssh", *self._options, "-p", str(self._to["port"]), self._where, command],
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def copy(self, source: str, target: str) -> None:
        port = ["-P", str(self._to["port"])]
        subprocess.run(["scp", "-q", *self._options, *port, source, target], check=True)

    def there(self, path: str) -> str:
        return f"{self._where}:{path}"


@pytest.mark.farm
@pytest.mark.timeout(600)
def test_on_a_board_without_network(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    board = Board("qemu-a72")
    tiny.devices = [board.entry]
    tiny.inputs["limit"] = 50
    tiny.matrix["conditions"] = ["clean", "repeat:2"]
    tiny.policy["reference"] = [{"device": "qemu-a72", "runtime": "ort"}]
    online = assay("run", tiny.write(), "--json", store=store, timeout=280)
    assert online.json["coverage"]["ok"] == 2, online.err
    run = submitted(tiny, store)
    archive = packed(run, store, tmp_path)

    folder = f"/root/desk-{os.getpid()}"
    board.run(f"mkdir -p {folder}")
    try:
        board.copy(str(archive), board.there(folder))
        address = (board.entry["transport"]["host"], board.entry["transport"]["port"])
        reached = f"python3 -c 'import socket; socket.create_connection({address}, 5)'"
        reached = reached.replace(f"'{address[0]}'", f'"{address[0]}"')
        assert board.run(reached).returncode == 0
        by_hand = tmp_path / "by-hand.sh"
        by_hand.write_text(
            f"tar -xzf {archive.name} && ! {reached} 2> /dev/null &&"
            " cd assay-pack-*[0-9a-f]/ && sh run.sh\n"
        )
        board.copy(str(by_hand), board.there(folder))
        done = board.run(f"cd {folder} && unshare -n sh {by_hand.name}")
        assert (done.returncode, done.stderr) == (0, ""), done
        board.copy(board.there(f"{folder}/assay-pack-*/assay-result-*.tar.gz"), str(tmp_path))
    finally:
        board.run(f"rm -rf {folder}")
    result = offline.result_of(tmp_path)

    def one_bit(document: dict[str, Any], files: dict[str, bytes]) -> None:
        name = f"files/{document['answers'][0]['files']['output-0']['sha256']}"
        files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])

    def another_board(document: dict[str, Any], files: dict[str, bytes]) -> None:
        document["environment"]["board"]["class"] = "qemu-a53"

    changed = offline.tampered(result, tmp_path / "tampered", one_bit)
    assay("ingest", changed, store=store).refused(2, "E-INGEST-HASH")
    changed = offline.tampered(result, tmp_path / "tampered", another_board)
    assay("ingest", changed, store=store).refused(2, "E-INGEST-DEVICE", "qemu-a53")
    ingested = assay("ingest", result, store=store)
    assert ingested.code == 0, ingested.err

    document = assay("resume", run, "--json", store=store)
    assert document.json["coverage"]["ok"] == 2
    assert {a["offline"] for a in document.json["attempts"]} == {True}
    before, after = attempts(store, online.json["run"]["id"]), attempts(store, run)
    assert {c: brought(a) for c, a in after.items()} == {c: brought(a) for c, a in before.items()}
