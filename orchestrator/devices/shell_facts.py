"""What the shell of a device says of its clock, its disk, its board file and its lease."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from orchestrator.devices.findings import Extras
from orchestrator.transports.base import Transport

BEAT_S = 6.0
"""Three heartbeats of a worker."""

SCRIPT = r"""n=$1; r=$2
printf '%s clock\n' "$n"; date +%s 2>/dev/null
printf '\n%s free\n' "$n"; df -Pk "$r" 2>/dev/null
printf '\n%s board\n' "$n"; head -c 65536 /etc/assay-board.json 2>/dev/null
printf '\n%s lease\n' "$n"; head -c 65536 "$r/lease.json" 2>/dev/null
printf '\n%s bundles\n' "$n"; ls -d "$r"/bundles/*/.complete 2>/dev/null
:"""


def read_extras(transport: Transport, *, timeout: float) -> Extras:
    """Raises what the transport raises (E-LINK, E-DEADLINE); what cannot be read is None."""
    nonce, root = secrets.token_hex(12), str(transport.root())
    begin = time.time()
    done = transport.run(["sh", "-c", SCRIPT, "sh", nonce, root], timeout=timeout)
    now = (begin + time.time()) / 2
    return parsed(done.stdout.decode(errors="replace"), nonce, now)


def parsed(text: str, nonce: str, now: float) -> Extras:
    """``now``: our own seconds since 1970, about when the device was asked for its."""
    parts: dict[str, str] = {}
    for part in text.split(f"{nonce} ")[1:]:
        name, _, body = part.partition("\n")
        parts[name] = body.strip()
    clock, table = parts.get("clock", ""), parts.get("free", "").splitlines()
    words = table[-1].split() if len(table) > 1 else []
    available = words[3] if len(words) > 3 else ""
    return Extras(
        clock_s=float(clock) - now if clock.isdecimal() else None,
        free=int(available) * 1024 if available.isdecimal() else None,
        board=parts.get("board") or None,
        lease=parts.get("lease") or None,
        bundles=len(parts.get("bundles", "").splitlines()),
    )


def board_of(extras: Extras) -> Any:
    """The board file as JSON data, None where there is none; a damaged one is an empty object."""
    if extras.board is None:
        return None
    try:
        return json.loads(extras.board)
    except ValueError:
        return {}


def holder(transport: Transport, owner: str, seen: Extras, *, timeout: float) -> str | None:
    """The farm that holds the device and is alive, None when ``owner`` may have it.

    A worker finds that out by itself. This is for what is done to a device before one can be
    started. Raises what the transport raises.
    """
    before = granted(seen)
    if before is None or before[0] == owner:
        return None
    time.sleep(BEAT_S)
    after = granted(read_extras(transport, timeout=timeout))
    return before[0] if after is not None and after != before else None


def granted(extras: Extras) -> tuple[str, Any] | None:
    """The holder of the device's lease, and what moves as long as it lives."""
    try:
        state = json.loads(extras.lease or "null")
    except ValueError:
        return None  # the worker says that it is damaged, and what to do
    owner = state.get("owner") if isinstance(state, dict) else None
    return (owner, [state.get("token"), state.get("counter")]) if isinstance(owner, str) else None
