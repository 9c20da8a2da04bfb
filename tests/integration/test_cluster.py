"""What only Ray can get wrong: a hub that dies, who may talk to it, whose cluster it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import InfraError
from orchestrator.fanout.cluster import Cluster
from tests.support.cli import assay, until
from tests.support.line import descendants, newest, workers
from tests.support.orders import Bench
from tests.support.tiny import Tiny

pytestmark = pytest.mark.timeout(150)

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same as IPv6, and ::1, as proc(5) writes them."""


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="module")
def cluster(spool: Path) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        made = Cluster(["one", "two"], spool)
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, columns=9)


# A hub dies ----------------------------------------------------------------------------------


def test_a_killed_hub_loses_its_order_and_takes_the_next(cluster: Cluster, bench: Bench) -> None:
    flying = cluster.run(bench.order("one", repeat=1_000_000))
    until(lambda: workers(bench.root("one")), "the worker is started")
    (dead,) = cluster.hub_pids()
    os.kill(dead, signal.SIGKILL)
    with pytest.raises(InfraError, match="E-HUB-LOST") as lost:
        flying.result(timeout=30)
    assert lost.value.retryable
    until(lambda: not workers(bench.root("one")), "the worker ends with its hub")
    bench.check(cluster.run(bench.order("one")).result(timeout=60))
    (alive,) = cluster.hub_pids()
    assert alive != dead
    cluster.let_go("one")


def test_what_a_hub_has_spooled_outlives_it(cluster: Cluster, bench: Bench) -> None:
    finished = cluster.run(bench.order("one")).result()
    os.kill(cluster.hub_pids()[0], signal.SIGKILL)
    until(lambda: hub_is_back(cluster), "the hub is started again")
    assert finished.attempt in cluster.spooled()
    assert cluster.redeliver(finished.attempt) == finished


def test_a_restarted_hub_is_brought_what_the_old_one_had(
    cluster: Cluster, bench: Bench, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it comes up on another machine: the folder of the old one is not there."""
    monkeypatch.chdir(bench.folder)
    far = Bench(bench.folder, columns=11)
    far.check(cluster.run(far.order("one", samples=6, paths=bench.folder)).result(), samples=6)
    cluster.let_go("one")
    until(lambda: not workers(far.root("one")), "the next order starts a worker of its own")
    flying = cluster.run(far.order("one", samples=6, paths=bench.folder, repeat=1_000_000))
    until(lambda: workers(far.root("one")), "the order has reached the hub")
    shutil.rmtree(spool / "hub-0" / "blobs")
    os.kill(cluster.hub_pids()[0], signal.SIGKILL)
    with pytest.raises(InfraError, match="E-HUB-LOST"):
        flying.result(timeout=30)
    far.check(cluster.run(far.order("one", samples=6, paths=bench.folder)).result(), samples=6)
    cluster.let_go("one")


def hub_is_back(cluster: Cluster) -> bool:
    try:
        return bool(cluster.hub_pids())
    except InfraError as error:
        assert error.id == "E-HUB-LOST"  # noqa: PT017  anything else is raised as it is
        return False


# Who may talk to it --------------------------------------------------------------------------


def test_it_listens_on_loopback_only(cluster: Cluster) -> None:
    ours = [os.getpid(), *descendants(os.getpid(), "")]
    listening = [a for pid in ours for a in listeners(pid)]
    assert len(listening) >= 4, "raylet, GCS, hub and this process all listen"
    assert set(listening) <= LOOPBACK


def listeners(pid: int) -> list[str]:
    """Addresses (as in /proc/net/tcp) on which a process listens; none once it has ended."""
    process = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        tables = [(process / "net" / name).read_text() for name in ("tcp", "tcp6")]
        sockets = {_target(fd) for fd in (process / "fd").iterdir()}
        rows = [line.split() for table in tables for line in table.splitlines()[1:]]
        return [
            row[1].partition(":")[0]
            for row in rows
            if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
        ]
    return []


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:
        return ""  # closed meanwhile


JOIN = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
print(len(ray.nodes()), "node")
"""


def test_with_the_token_one_gets_in(cluster: Cluster) -> None:
    joined = subprocess.run(
        [sys.executable, "-c", JOIN, address()], capture_output=True, text=True, timeout=60
    )
    assert joined.stdout == "1 node\n", joined.stderr


def test_without_the_token_one_does_not(cluster: Cluster, tmp_path: Path) -> None:
    env = {
        "RAY_ADDRESS": address(),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or Ray swaps 127.0.0.1 for this host's address
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 64,
        "ASSAY_EXECUTOR": "ray",
    }
    store = tmp_path / "store"
    refused = assay("run", Tiny(tmp_path / "matrix").write(), store=store, env=env)
    assert refused.code == 3
    last = refused.err.splitlines()[-1]
    assert last.startswith("assay: cannot join Ray: ")
    assert last.endswith("[E-RAY-START]")
    assert newest(store) is None


def address() -> str:
    """Where the GCS of the cluster of this process is, read off its command line."""
    (gcs,) = descendants(os.getpid(), "gcs_server --")
    arguments = Path(f"/proc/{gcs}/cmdline").read_text().split("\0")
    (folder,) = (a.partition("=")[2] for a in arguments if a.startswith("--session-dir="))
    (port,) = (p.read_text() for p in Path(folder).glob("gcs_server_port*"))
    return f"127.0.0.1:{port}"


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_usage_statistics_are_off_and_the_token_is_this_runs_own(cluster: Cluster) -> None:
    (gcs,) = descendants(os.getpid(), "gcs_server --")
    env = environment(gcs)
    assert env["RAY_USAGE_STATS_ENABLED"] == "0"
    assert env["RAY_AUTH_MODE"] == "token"
    token = env["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    at_home = Path.home() / ".ray" / "auth_token"
    assert not at_home.exists() or at_home.read_text().strip() != token


# Somebody else's cluster ---------------------------------------------------------------------


@pytest.fixture
def head(tmp_path: Path) -> Iterator[tuple[dict[str, str], int]]:
    """A cluster that was there before us: variables to join it with, and its first process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env = ours | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "ab" * 32,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    log = tmp_path / "head.log"
    start = ["start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    options = ["--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), *start, *options],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
        )
    try:
        until(lambda: "Ray runtime started" in log.read_text(), log.read_text(), 60)
        yield env | {"RAY_ADDRESS": f"127.0.0.1:{port}", "ASSAY_EXECUTOR": "ray"}, process.pid
    finally:
        family = [*descendants(process.pid, ""), process.pid]
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


def test_ray_address_joins_a_cluster_and_leaves_it_as_it_was(
    head: tuple[dict[str, str], int], tmp_path: Path
) -> None:
    env, leader = head
    tiny = Tiny(tmp_path / "matrix")
    done = assay("run", tiny.write(), "--json", store=tmp_path / "store", env=env)
    assert done.code == 0, done.err
    assert done.json["coverage"]["ok"] == 1
    assert not workers(tiny.root())
    until(lambda: not descendants(leader, "ray::Hub"), "its hub has ended")
    assert descendants(leader, "raylet --"), "the cluster has not"


TWO_NODES = """
import os, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster as Nodes
from orchestrator.fanout.cluster import Cluster

def where():
    time.sleep(2)
    return ray.get_runtime_context().get_node_id()

here = {"node_ip_address": "127.0.0.1", "include_dashboard": False, "num_cpus": 2}
nodes = Nodes(initialize_head=True, head_node_args=here)
nodes.add_node(num_cpus=4, node_ip_address="127.0.0.1")
os.environ["RAY_ADDRESS"] = nodes.address
cluster = Cluster([], Path(sys.argv[1]))
assert sum(node["Alive"] for node in ray.nodes()) == 2
tasks, mine = [cluster.compute(where) for _ in range(6)], where()
print({task.result() == mine for task in tasks})
cluster.close()
nodes.shutdown()
"""


def test_tasks_stay_on_the_host_whose_files_they_read(tmp_path: Path) -> None:
    """Also where another node of the cluster has cores to spare."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    alone = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}
    asked = [sys.executable, "-c", TWO_NODES, str(tmp_path / "spool")]
    told = subprocess.run(
        asked, env=ours | alone | secret, capture_output=True, text=True, timeout=120
    )
    assert (told.stdout.strip(), told.returncode) == ("{True}", 0), told.stderr


# Hubs that are not there ---------------------------------------------------------------------


def test_a_device_of_a_hub_needs_a_cluster(tmp_path: Path) -> None:
    tiny, store = Tiny(tmp_path / "matrix"), tmp_path / "store"
    tiny.devices = [tiny.device("pi", hub="lab-a")]
    tiny.policy["reference"] = [{"device": "pi", "runtime": "ort"}]
    matrix = tiny.write()
    assay("run", matrix, store=store).refused(2, "E-HUB-INPROCESS", "pi", "lab-a")
    alone = assay("run", matrix, store=store, env={"ASSAY_EXECUTOR": "ray"})
    alone.refused(3, "E-HUB-UNKNOWN", "lab-a", "assay hub start", "RAY_ADDRESS")
    assert newest(store) is None
