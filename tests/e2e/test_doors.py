"""Paths, addresses and streams that are not what a command expects end in one line of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.main import invoke
from orchestrator.cli.options import store_folder
from tests.support.cli import ASSAY, REPO, assay, until
from tests.support.tiny import Tiny

SECRET = "hunter2"
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (f"postgresql://bob:{SECRET}@db.lab/assay", "postgresql"),
        (f"POSTGRES://bob:{SECRET}@db.lab", "postgres"),
        (f"postgresql+psycopg://bob:{SECRET}@db.lab/assay?sslmode=require", "postgresql+psycopg"),
        (f"mysql://bob:{SECRET}@db.lab/assay", "mysql"),
        (f"jdbc:postgresql://db.lab/assay?password={SECRET}", "jdbc"),
        (f"sqlite:///{SECRET}.db", "sqlite"),
        (f"sqlite:{SECRET}.db", "sqlite"),
        (f"https://bob:{SECRET}@lab/store", "https"),
        (f"host=db.lab user=bob password={SECRET}", "database"),
        (f"dbname=assay password={SECRET}", "database"),
    ],
)
def test_a_database_is_refused_by_name_and_its_password_stays_unsaid(
    address: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["resume", "--store", address]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"assay: --store was given a {kind} address")
    assert line.endswith("[E-STORE-ADDRESS]")
    assert SECRET not in line
    assert not list(tmp_path.iterdir()), "no folder of that name"


def test_nothing_is_run_for_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = str(Tiny(tmp_path / "m").write())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("ASSAY_STORE", f"postgresql://bob:{SECRET}@db.lab/assay")
    for command in ("submit", "run"):
        assert invoke([command, path]) == 2
        said = capsys.readouterr()
        assert "[E-STORE-ADDRESS]" in said.err
        assert SECRET not in said.err + said.out
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("name", ["store", "a b", "user@host", "v1:2", "x=y", "/srv/a:b", "c:d/e"])
def test_a_folder_may_have_an_odd_name(name: str) -> None:
    assert store_folder(Path(name)) == Path(name)


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def zeros(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def sparse(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(1 << 42)
    return path


KINDS: dict[Callable[[Path], Path], str] = {fifo: "a FIFO", folder: "a folder", zeros: "a device"}


def of_matrix(tiny: Tiny, path: Path) -> Path:
    return path


def of_inventory(tiny: Tiny, path: Path) -> Path:
    tiny.matrix["inventory"] = str(path)
    return tiny.write()


def of_policy(tiny: Tiny, path: Path) -> Path:
    tiny.matrix["policy"] = str(path)
    return tiny.write()


def of_model(tiny: Tiny, path: Path) -> Path:
    tiny.file["path"] = str(path)
    return tiny.write()


def of_parent(tiny: Tiny, path: Path) -> Path:
    tiny.matrix["models"][0]["fp32"]["path"] = str(path)
    return tiny.write()


def of_inputs(tiny: Tiny, path: Path) -> Path:
    tiny.inputs["path"] = str(path)
    return tiny.write()


def of_labels(tiny: Tiny, path: Path) -> Path:
    tiny.matrix["inputs"] = [
        {"name": "digits", "type": "npy", "path": str(path), "labels": str(path)}
    ]
    return tiny.write()


PLACES = [of_matrix, of_inventory, of_policy, of_model, of_parent, of_inputs, of_labels]


@pytest.mark.parametrize("place", PLACES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("make", KINDS, ids=lambda f: f.__name__)
def test_plan_waits_for_no_fifo_and_reads_no_device(
    make: Callable[[Path], Path],
    place: Callable[[Tiny, Path], Path],
    tmp_path: Path,
    capsys: Capture,
) -> None:
    given = place(Tiny(tmp_path / "m"), make(tmp_path / "x.onnx"))
    assert invoke(["plan", str(given)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{KINDS[make]}, not a file" in line


@pytest.mark.parametrize("place", [of_matrix, of_inventory, of_model, of_inputs])
def test_a_file_of_four_terabytes_is_not_read(
    place: Callable[[Tiny, Path], Path], tmp_path: Path, capsys: Capture
) -> None:
    given = place(Tiny(tmp_path / "m"), sparse(tmp_path / "x.onnx"))
    assert invoke(["plan", str(given)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "larger than 1048576 bytes" in line or "are not read" in line


def test_a_fifo_among_the_pictures_is_named(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("PIL")
    tiny = Tiny(tmp_path / "m")
    (tmp_path / "pictures").mkdir()
    fifo(tmp_path / "pictures" / "a.png")
    tiny.matrix["inputs"] = [
        {"name": "digits", "type": "images", "path": str(tmp_path / "pictures"), "size": [8, 8]}
    ]
    assert invoke(["plan", str(tiny.write())]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.png" in line
    assert "a FIFO, not a file" in line


def test_another_policy_may_be_no_fifo(tmp_path: Path, capsys: Capture) -> None:
    tiny, store = Tiny(tmp_path / "m"), str(tmp_path / "store")
    assert invoke(["submit", str(tiny.write()), "--store", store]) == 0
    capsys.readouterr()
    policy = str(fifo(tmp_path / "p.yaml"))
    assert invoke(["signoff", "--store", store, "--policy", policy]) == 2
    assert "a FIFO, not a file" in capsys.readouterr().err


FULL = "standard output takes no more: No space left on device"


@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
def test_a_full_disk_behind_stdout_is_said_and_what_was_run_is_kept(
    buffered: bool, tmp_path: Path
) -> None:
    env = {**os.environ, "ASSAY_EXECUTOR": "inprocess", "PYTHONUNBUFFERED": "" if buffered else "1"}
    env |= {"ASSAY_STORE": str(tmp_path / "store")}
    commands = [["version"], ["run", str(Tiny(tmp_path / "m").write())]]
    for words in commands if buffered else commands[:1]:
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [str(ASSAY), *words], stdout=full, stderr=subprocess.PIPE, text=True, env=env,
                cwd=REPO, check=False,
            )  # fmt: skip
        last = done.stderr.splitlines()[-1]
        assert FULL in last
        assert last.endswith("[E-OUTPUT-WRITE]")
        assert done.returncode == 3
        assert "Exception ignored" not in done.stderr
    if buffered:
        assert assay("signoff", store=tmp_path / "store").code == 0


@pytest.mark.parametrize("shell", ["2>/dev/full", "2>&-", ">&- 2>&-", "<&- >&-"])
def test_the_exit_code_is_said_where_nothing_else_can_be(shell: str, tmp_path: Path) -> None:
    for words, code in (("plan nowhere.yaml", 2), ("version", 0)):
        done = subprocess.run(
            ["sh", "-c", f"{ASSAY} {words} {shell}"], capture_output=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPO)}, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr


def test_a_closed_terminal_ends_no_run(tmp_path: Path) -> None:
    """Its hang-up drains, although not a word can be written any more."""
    master, slave = os.openpty()
    tiny = Tiny(tmp_path / "m")
    tiny.matrix["conditions"] = ["clean", "repeat:3000", "repeat:3001"]
    store = tmp_path / "store"
    code = (
        "import os, signal, sys, fcntl, termios\n"
        "os.setsid(); fcntl.ioctl(1, termios.TIOCSCTTY, 0)\n"
        "from orchestrator.cli.main import main\n"
        "main()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(tiny.write()), "--store", str(store),
         "--executor", "inprocess"],
        stdin=slave, stdout=slave, stderr=slave, cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    os.close(slave)
    until(lambda: any(tiny.root().glob("out/*/*")), "a cell at work", 120)
    os.close(master)
    assert running.wait(120) == 130
    (run,) = assay("status", "--json", store=store).json["runs"]
    assert run["state"] == "interrupted"
    assert run["cells"]["running"] == 0
