"""infra/locks/tflite_env.sh: an environment that cannot be had costs its rows, and says why."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.cli import REPO

SCRIPT = REPO / "infra" / "locks" / "tflite_env.sh"
FITS = 'case "$*" in -c*) exit 0 ;; esac\n'
PIP = """mkdir -p "$3/bin"; cat >"$3/bin/python" <<'END'
#!/bin/sh
%s
END
chmod +x "$3/bin/python"
"""
REFUSES = 'echo "WARNING: a"; echo "ERROR: no wheel of numpy==1.26.4"; echo "[notice] b"; exit 1'


def made(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """What the script says where there is no other Python than this one."""
    given = folder / "python"
    given.write_text(f"#!/bin/sh\n{python}")
    given.chmod(0o755)
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("cat", "chmod", "grep", "mkdir", "rm", "sh", "tail", "touch"):
        link = tools / name
        if not link.is_symlink():
            link.symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    return subprocess.run(
        ["/bin/sh", SCRIPT, given],
        cwd=folder,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def tried(folder: Path) -> bool:
    return (folder / ".venv-tflite" / ".tried").exists()


@pytest.mark.parametrize(
    ("python", "says"),
    [
        (FITS + PIP % REFUSES, "ERROR: no wheel of numpy==1.26.4"),
        (FITS + "echo ensurepip is not available; exit 1\n", "ensurepip is not available"),
    ],
    ids=["pip", "venv"],
)
def test_what_failed_is_said_and_tried_again(tmp_path: Path, python: str, says: str) -> None:
    for _ in range(2):
        done = made(tmp_path, python)
        assert done.returncode == 0, done
        assert done.stderr.endswith(f"{says}\n"), done
        assert "not available here" in done.stderr
        assert not (tmp_path / ".venv-tflite").exists(), "half an environment is none"
    done = made(tmp_path, FITS + PIP % "exit 0")
    assert (done.returncode, done.stderr, tried(tmp_path)) == (0, "", True)


def test_without_a_python_that_is_old_enough(tmp_path: Path) -> None:
    done = made(tmp_path, "exit 1\n")
    assert (done.returncode, tried(tmp_path)) == (0, True), done
    assert done.stderr.endswith("no Python 3.9 to 3.11\n")
    assert not (tmp_path / ".venv-tflite" / "bin").exists()
