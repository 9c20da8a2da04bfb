"""Where a store lies: host and folder, and whether another one may still be where it was."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from orchestrator.store.farm import FARM


def here(root: Path) -> str:
    """``host#machine:folder``. The machine's own ID tells hosts of the same name apart."""
    return f"{_host()}:{root.resolve()}"


def shown(place: str) -> str:
    """A place for people, also one that a device told: one line, bounded."""
    text = re.sub(r"#[0-9a-f]*:", ":", place, count=1)
    return "".join(c if c.isprintable() else "?" for c in text)[:200] or "an unknown place"


def gone(place: str, root: Path, farm: str) -> bool:
    """Whether the store of ``farm`` that was at ``place`` is certainly no other than ours.

    True where its folder is the one of ours, or lies on this host and holds the farm no more. An
    older Assay knew no places (""): its store is the one that became ours.
    """
    host, _, folder = place.partition(":")
    if not place:
        return True
    if host != _host() or not folder.startswith("/"):
        return False
    try:
        other = Path(folder)
        if other.samefile(root):
            return True
        return (other / FARM).read_text().strip() != farm
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False  # not to be told


def _host() -> str:
    try:
        machine = Path("/etc/machine-id").read_text().strip()[:8]
    except (OSError, ValueError):
        machine = ""
    return f"{socket.gethostname()}#{machine}"
