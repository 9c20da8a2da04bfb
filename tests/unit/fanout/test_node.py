"""A host as a node of a cluster: what is refused before Ray is started, and how it ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.errors import InfraError, InputError
from orchestrator.fanout import interface, node
from orchestrator.fanout.interface import bound_to, check_interface
from orchestrator.fanout.node import Place, check_token, hub_command, make_token, serve
from tests.support.cli import assay


def test_a_token_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token"
    make_token(path)
    first = path.read_text()
    make_token(path)
    assert path.read_text() == first
    assert path.stat().st_mode & 0o777 == 0o600
    check_token(path)


@pytest.mark.parametrize(
    ("mode", "text", "why"),
    [
        (0o640, "a" * 64, "open to other users"),
        (0o604, "a" * 64, "open to other users"),
        (0o600, "short", "too short"),
        (0o600, None, "cannot be read"),
    ],
)
def test_a_token_that_is_no_secret(tmp_path: Path, mode: int, text: str | None, why: str) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(InputError, match=f"{why}.*E-HUB-TOKEN"):
        check_token(path)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "0.0.0.0", "192.0.2.1", "eth0", "", "::1", "localhost"]
)
def test_an_interface_is_an_address_of_this_host_that_others_reach(address: str) -> None:
    with pytest.raises(InputError, match="E-HUB-INTERFACE"):
        check_interface(address)


@pytest.mark.parametrize(
    ("name", "address", "id"),
    [("a b", "h:1", "E-MATRIX-NAME"), ("", "h:1", "E-MATRIX-NAME"), ("a", "h", "E-HUB-ADDRESS")],
)
def test_a_hub_has_a_name_and_a_head(name: str, address: str, id: str) -> None:
    with pytest.raises(InputError, match=id):
        hub_command(name, "10.0.0.1", address)


@pytest.mark.skipif(not shutil.which("cc"), reason="apt install gcc libc6-dev")
def test_what_would_listen_everywhere_listens_on_one_address(tmp_path: Path) -> None:
    env = bound_to("127.0.0.5", tmp_path)
    code = (
        "import socket as s, os\n"
        "for family, host in ((s.AF_INET, ''), (s.AF_INET6, '::'), (s.AF_INET, '127.0.0.9')):\n"
        "    a = s.socket(family); a.bind((host, 0)); print(a.getsockname()[0])\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["127.0.0.5", "::ffff:127.0.0.5", "127.0.0.9"]
    (library,) = tmp_path.iterdir()
    before = library.stat().st_mtime_ns
    assert bound_to("127.0.0.5", tmp_path) == env
    assert library.stat().st_mtime_ns == before, "compiled once"


def test_without_a_compiler_there_is_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfraError, match="E-HUB-COMPILER"):
        bound_to("127.0.0.5", tmp_path / "folder")
    monkeypatch.undo()
    if shutil.which("cc"):
        monkeypatch.setattr(interface, "_SOURCE", "no C at all")
        with pytest.raises(InfraError, match="E-HUB-COMPILER"):
            bound_to("127.0.0.5", tmp_path / "folder")
        assert not list((tmp_path / "folder").iterdir())


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def test_a_node_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = python("import sys; print('starting'); sys.exit('no head there')")
    with pytest.raises(InfraError, match=r"did not start: no head there .*E-HUB-START"):
        serve(command, {}, tmp_path / "log", lambda: None, threading.Event())


def test_another_version_of_ray_is_one_line(tmp_path: Path) -> None:
    """As Ray 2.60 words it."""
    text = (
        "Traceback\\nRuntimeError: Version mismatch: The cluster was started with:\\n"
        "    Ray: 2.59.0\\n    Python: 3.11.2\\nThis process on node 10.0.0.2 was started with:\\n"
        "    Ray: 2.60.0\\n    Python: 3.11.2\\n"
    )
    with pytest.raises(InfraError, match=r"Ray: 2\.59\.0 .*Ray: 2\.60\.0.*E-RAY-VERSION") as told:
        serve(
            python(f"raise SystemExit('''{text}''')"),
            {},
            tmp_path / "log",
            lambda: None,
            threading.Event(),
        )
    assert "\n" not in str(told.value)


def test_a_node_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """Also with a child that does not listen to SIGTERM."""
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = f"{stubborn}; print('ready', flush=True); time.sleep(600)"
    code = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); print(p.pid, 'Ray runtime started'); time.sleep(600)\n"
    )
    end, log = threading.Event(), tmp_path / "log"
    serve(python(code), {}, log, end.set, end)
    assert not Path(f"/proc/{log.read_text().split()[0]}").exists() or state(log) == "Z"


def state(log: Path) -> str:
    stat = Path(f"/proc/{log.read_text().split()[0]}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def test_a_node_that_ends_by_itself_or_misses_its_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "HEADLESS_S", 0.2)
    monkeypatch.setattr(node, "_LOOK_S", 0.1)
    for seconds, why in ((0, "Ray on this host ended"), (600, "did not answer for 0.2 s")):
        code = f"import time; print('Ray runtime started'); time.sleep({seconds})"
        with pytest.raises(InfraError, match=f"{why}.*E-HUB-ENDED"):
            serve(
                python(code),
                {},
                tmp_path / "log",
                lambda: None,
                threading.Event(),
                None if seconds == 0 else "127.0.0.1:1",
            )


def test_a_place_needs_its_interface_and_token(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="E-HUB-INTERFACE"):
        Place("127.0.0.1", tmp_path / "token", tmp_path).env()


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    start = ("hub", "start", "lab", "--address", "10.0.0.1:6399", "--interface", "127.0.0.1")
    assay(*start, env=home).refused(2, "E-HUB-INTERFACE", "127.0.0.1")
    assay("hub", "start", "a b", *start[3:], env=home).refused(2, "E-MATRIX-NAME")
