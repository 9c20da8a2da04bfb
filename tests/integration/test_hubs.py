"""Two hubs in networks of their own, each with a board that only it reaches, at one address.

The head and the coordinator are in a third network. Nothing of it can be reached from the machine's
own, and whatever is begun is removed again.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.fanout.node import make_token
from orchestrator.queue.states import AttemptState
from orchestrator.store.database import Store
from orchestrator.store.farm import farm_id
from orchestrator.store.records import AttemptInfo
from tests.support import sshd
from tests.support.cli import Done, Running, assay, start, until
from tests.support.line import descendants, newest, summary, workers
from tests.support.tiny import Tiny

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces: not root"),
    pytest.mark.skipif(
        not (shutil.which("ip") and shutil.which("ss")), reason="apt install iproute2"
    ),
    pytest.mark.skipif(not shutil.which("cc"), reason="apt install gcc libc6-dev"),
    pytest.mark.skipif(bool(sshd.MISSING), reason=sshd.MISSING or ""),
]

HEAD, HUBS = "10.91.0.1", {"lab-a": "10.91.0.2", "lab-b": "10.91.0.3"}
ADDRESS = f"{HEAD}:6399"
BOARD_PORT = 2222


def ip(*words: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0 or not check, (words, done.stderr)


@dataclass
class Lab:
    """``boards``: hub -> the board behind it; all have the same address."""

    folder: Path
    boards: dict[str, sshd.Sshd] = field(default_factory=dict)
    nodes: dict[str, Running] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def network(self, name: str) -> str:
        return f"assay-{os.getpid()}-{name}"

    def inside(self, name: str) -> list[str]:
        return ["ip", "netns", "exec", self.network(name)]

    def start_head(self) -> None:
        arguments = ("head", "--interface", HEAD, "--token", str(self.token))
        self._start("head", self.inside("head"), *arguments)

    def start_hub(self, name: str) -> None:
        """The coordinator's store is hidden from it, as on another machine."""
        hidden = ["sh", "-c", f'mount -t tmpfs none "{self.store}" && exec "$@"', "sh"]
        joins = ("--address", ADDRESS, "--interface", HUBS[name], "--token", str(self.token))
        self._start(name, [*self.inside(name), *hidden], "start", name, *joins)

    def _start(self, name: str, before: list[str], *arguments: str) -> None:
        node = start("hub", *arguments, before=before, env=self.home)
        self.nodes[name] = node
        assert node.process.stdout is not None
        said = node.process.stdout.readline()
        assert HUBS.get(name, HEAD) in said or ADDRESS in said, node.wait(10).err

    @property
    def token(self) -> Path:
        return self.folder / "token"

    @property
    def home(self) -> dict[str, str]:
        return {"HOME": str(self.folder / "home")}

    def kill_node(self, name: str) -> Done:
        """SIGKILL to all of a hub's Ray, not to the command that watches over it."""
        node = self.nodes.pop(name)
        for pid in descendants(node.process.pid, ""):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return node.wait()

    def cable(self, hub: str, state: str) -> None:
        cable = f"hub{list(HUBS).index(hub)}"
        ip("-n", self.network("head"), "link", "set", cable, state)

    def tiny(self, name: str) -> Tiny:
        """A device here and one behind each hub."""
        tiny = Tiny(self.folder / name)
        far = [self.behind(tiny, hub) for hub in self.boards]
        tiny.devices = [tiny.device("near", **{"class": "host"}), *far]
        tiny.matrix["devices"] = [{"name": d["name"]} for d in tiny.devices]
        tiny.policy["reference"] = [{"device": "near", "runtime": "ort"}]
        return tiny

    def behind(self, tiny: Tiny, hub: str) -> dict[str, Any]:
        name = f"board-{hub}"
        settings = self.boards[hub].settings(root=str(tiny.root(name)))
        return tiny.device(
            name,
            **{"class": "host"},
            hub=hub,
            transport=settings.model_dump(),
            python={"default": sys.executable},
        )

    def run(self, matrix: Path) -> Running:
        return start("run", matrix, "--json", store=self.store, before=self.inside("head"),
                     env={**self.env, **self.home, "ASSAY_EXECUTOR": "ray"})  # fmt: skip

    def attempts(self) -> list[AttemptInfo]:
        with Store.open(self.store, readonly=True) as opened:
            return list(opened.attempts(opened.run(None).id))

    def listening(self, name: str) -> set[str]:
        """Addresses on which anything in this network listens."""
        command = [*self.inside(name), "ss", "-Hltn"]
        rows = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = {line.split()[3].rpartition(":")[0] for line in rows.splitlines()}
        return {address.strip("[]").removeprefix("::ffff:") for address in found}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("lab"))
    made.store.mkdir()
    with contextlib.ExitStack() as undo:
        networks(made, undo)
        undo.callback(lambda: end(made))
        for hub in HUBS:
            board = sshd.running(
                made.folder / f"sshd-{hub}", port=BOARD_PORT, before=made.inside(hub)
            )
            made.boards[hub] = undo.enter_context(board)
        made.start_head()
        for hub in HUBS:
            made.start_hub(hub)
        joins = ("--address", ADDRESS, "--interface", HEAD, "--token", str(made.token))
        told = assay("hub", "env", *joins, before=made.inside("head"), env=made.home)
        made.env = dict(re.findall(r"^export (\w+)=(\S+)$", told.out, re.MULTILINE))
        yield made


def networks(lab: Lab, undo: contextlib.ExitStack) -> None:
    """A bridge in the head's network, and a cable from it to each hub's."""
    for name in ("head", *HUBS):
        ip("netns", "add", lab.network(name))
        undo.callback(ip, "netns", "delete", lab.network(name), check=False)
        ip("-n", lab.network(name), "link", "set", "lo", "up")
    ip("-n", lab.network("head"), "link", "add", "br0", "type", "bridge")
    ip("-n", lab.network("head"), "address", "add", f"{HEAD}/24", "dev", "br0")
    ip("-n", lab.network("head"), "link", "set", "br0", "up")
    for n, (hub, address) in enumerate(HUBS.items()):
        there = ("peer", "name", "eth0", "netns", lab.network(hub))
        ip("-n", lab.network("head"), "link", "add", f"hub{n}", "type", "veth", *there)
        ip("-n", lab.network("head"), "link", "set", f"hub{n}", "master", "br0", "up")
        ip("-n", lab.network(hub), "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", lab.network(hub), "link", "set", "eth0", "up")


def end(lab: Lab) -> None:
    """Stop hubs as an operator does: nothing of them may remain."""
    for name, node in sorted(lab.nodes.items(), reverse=True):  # the head last
        family = descendants(node.process.pid, "")
        node.interrupt(signal.SIGTERM)
        done = node.wait(60)
        assert done.code == 0, (name, done.err)
        assert not [pid for pid in family if alive(pid)], name


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_each_cell_goes_to_the_hub_that_reaches_its_device(lab: Lab) -> None:
    tiny = lab.tiny("placed")
    running = lab.run(tiny.write())
    until(lambda: workers(tiny.root("board-lab-b")), "work has begun on lab-b", 90)
    listening = {name: lab.listening(name) for name in ("head", *HUBS)}
    done = running.wait(120)
    assert done.code == 0, done.err
    assert done.json["coverage"]["ok"] == 3
    here = socket.gethostname()
    assert {(a.device, a.hub) for a in lab.attempts()} == {
        ("near", here),
        *((f"board-{hub}", f"{hub}@{here}") for hub in HUBS),
    }
    # One address, two boards: each keeps the files of its own device only.
    assert {row["host"] for row in (d["transport"] for d in tiny.devices[1:])} == {"127.0.0.1"}
    assert {row["port"] for row in (d["transport"] for d in tiny.devices[1:])} == {BOARD_PORT}
    # What a hub cannot read it was sent, and keeps in a folder of its own.
    for hub in HUBS:
        folder = lab.folder / "home/.cache/assay/hub" / farm_id(lab.store) / f"{hub}-0"
        assert len(list((folder / "blobs").iterdir())) == 2
        assert not list(folder.glob("*.attempt")), "delivered, so forgotten"
    # Ray listens in the cluster only; the board is the one thing on loopback.
    assert listening["head"] == {HEAD}
    for hub, address in HUBS.items():
        assert listening[hub] == {address, "127.0.0.1"}


def test_a_hub_that_returns_goes_on_and_one_that_stays_away_is_given_up(lab: Lab) -> None:
    """One is killed and started again, the cable of the other is cut for good."""
    tiny = lab.tiny("lost")
    tiny.repeat(100_000, retry=1)
    running = lab.run(tiny.write())
    roots = {hub: tiny.root(f"board-{hub}") for hub in HUBS}
    until(lambda: all(workers(root) for root in roots.values()), "work on both hubs", 90)
    gone = lab.kill_node("lab-a")
    assert gone.code == 3
    assert gone.err.endswith("[E-HUB-ENDED]\n")
    until(lambda: not workers(roots["lab-a"]), "the worker misses its hub")
    lab.start_hub("lab-a")
    lab.cable("lab-b", "down")
    # A hub without a head ends, and what it had on its devices with it.
    done = running.wait(250)
    assert done.code == 3, done.err
    headless = lab.nodes.pop("lab-b").wait(120)
    assert headless.err.endswith("[E-HUB-ENDED]\n")
    until(lambda: not workers(roots["lab-b"]), "the worker misses its hub")
    assert len(summary(lab.store).outcomes) == 3
    tried: dict[str, list[str]] = {"near": [], "board-lab-a": [], "board-lab-b": []}
    for attempt in lab.attempts():
        tried[attempt.device or ""].append(attempt.error_id or str(attempt.state))
    lost, ok = "E-HUB-LOST", str(AttemptState.OK)
    assert tried == {"near": [ok], "board-lab-a": [lost, ok], "board-lab-b": [lost, lost]}
    lab.cable("lab-b", "up")


def test_a_hub_that_no_node_is_ends_the_run_before_it_begins(lab: Lab) -> None:
    tiny = lab.tiny("unknown")
    tiny.devices[1]["hub"] = "lab-z"
    before = newest(lab.store)
    refused = lab.run(tiny.write()).wait(90)
    assert refused.code == 3
    assert re.match(r"assay: no Ray node is hub .*lab-z \(hubs: lab-a", refused.err)
    assert refused.err.endswith("[E-HUB-UNKNOWN]\n")
    assert newest(lab.store) == before


def test_a_hub_with_another_token_is_refused(lab: Lab) -> None:
    other = lab.folder / "other-token"
    make_token(other)
    joins = ("--address", ADDRESS, "--interface", HUBS["lab-a"], "--token", str(other))
    refused = assay("hub", "start", "lab-x", *joins, before=lab.inside("lab-a"), env=lab.home)
    refused.refused(3, "E-HUB-START")


def test_a_board_behind_a_gateway_needs_no_hub(lab: Lab) -> None:
    """The gateway alone is in both networks; the board listens on its network's loopback."""
    board = lab.boards["lab-a"]
    listens = f"Subsystem sftp internal-sftp\nListenAddress {HUBS['lab-a']}"
    folder = lab.folder / "gateway"
    with sshd.running(folder, listens, port=2223, before=lab.inside("lab-a")) as gateway:
        sshd.introduced(board, gateway, HUBS["lab-a"])
        known = lab.folder / "known_hosts"
        jump = f"{getpass.getuser()}@{HUBS['lab-a']}:{gateway.port}"
        tiny = Tiny(lab.folder / "jump")
        settings = board.settings(root=str(tiny.root()), jump=jump, known_hosts=str(known))
        python = {"default": sys.executable}
        tiny.devices = [tiny.device("bench", transport=settings.model_dump(), python=python)]
        matrix = tiny.write()
        head, store = lab.inside("head"), lab.folder / "jump-store"
        inventory = matrix.with_name("inventory.yaml")
        trust = assay("devices", "trust", "bench", "-i", inventory, "--yes", before=head)
        assert trust.code == 0, trust.err
        assert trust.out.count("SHA256:") == 2
        assert f"gateway of bench ({jump}) shows" in trust.out
        done = assay("run", matrix, "--json", store=store, before=head)
        assert done.code == 0, done.err
        assert assay("devices", "trust", "bench", "-i", inventory, before=head).code == 0
        # From where the gateway is not reached, neither is the board.
        lost = assay("run", matrix, "--json", store=lab.folder / "none")
        assert lost.code == 3
