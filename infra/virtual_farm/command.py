"""Running host tools so that every failure ends as one line."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .config import FarmError

# What tools print when the disk is full or the network is away; the user gets the cause, not the
# last of twenty lines.
CAUSES = {
    "No space left on device": "the disk is full",
    "Disk quota exceeded": "the disk quota is used up",
    "Temporary failure resolving": "no network (a name cannot be resolved)",
    "Could not resolve": "no network (a name cannot be resolved)",
    "Name or service not known": "no network (a name cannot be resolved)",
    "Could not connect": "no network (cannot connect)",
    "Failed to establish a new connection": "no network (cannot connect)",
    "Connection failed": "no network (cannot connect)",
    "Network is unreachable": "no network (unreachable)",
}


def explain(output: str) -> str:
    """Return the one line of a failed tool's output that says why."""
    for sign, cause in CAUSES.items():
        if sign in output:
            return cause
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("e:", "error", "fatal"))]
    chosen = (errors or lines or ["it said nothing"])[-1 if not errors else 0]
    return chosen if len(chosen) <= 200 else chosen[:197] + "..."


def run(
    argv: Sequence[str | Path],
    what: str,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 900.0,
) -> str:
    """Run a tool and return its standard output; raise FarmError when it fails."""
    try:
        done = subprocess.run(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd=cwd,
            env=env,
            timeout=timeout_s,
        )
    except FileNotFoundError as error:
        raise FarmError(f"{what}: {argv[0]} is not installed (see doctor)") from error
    except subprocess.TimeoutExpired as error:
        raise FarmError(f"{what}: {argv[0]} took longer than {timeout_s:.0f} s") from error
    if done.returncode != 0:
        raise FarmError(f"{what}: {explain(done.stdout + done.stderr)}")
    return done.stdout


def extract(package: Path, target: Path, what: str, exclude: Sequence[str] = ()) -> None:
    """Unpack a Debian package without running any of its scripts."""
    # Links of the merged /usr stay; owners do not, so that root and users get the same tree.
    options = ["--keep-directory-symlink", "--no-same-owner"]
    options += [f"--exclude={pattern}" for pattern in exclude]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as source:
        done = subprocess.run(
            ["tar", "-x", "-C", str(target), *options],
            stdin=source.stdout,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if source.stdout:
            source.stdout.close()
    if done.returncode != 0 or source.returncode != 0:
        raise FarmError(f"{what}: {explain(done.stderr or f'{package.name} is damaged')}")
