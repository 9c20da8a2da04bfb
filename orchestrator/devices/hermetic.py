"""A hermetic bundle on a device: brought once, whole or not at all, in ``root/bundles/<sha16>``.

The folder's ``.complete`` is written last: the bundle's sha256, a newline, its name.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from orchestrator.devices.bundle import BundleFile
from orchestrator.errors import InfraError
from orchestrator.transports import failures
from orchestrator.transports.base import Transport

LOOK_S = 60.0
TRANSFER_FLOOR_S = 60.0
TRANSFER_BYTES_PER_S = 50_000.0
"""Deadline of a transfer: a floor, and the slowest link (0.4 Mbit/s) we still call a link."""

UNPACK_FLOOR_S = 300.0
UNPACK_BYTES_PER_S = 50_000.0
"""Of the archive. Emulated devices unpack at some MB/s, old SD cards a tenth of that."""

_NO_TOOL, _WRONG, _UNPACK = 31, 32, 33

_LOOK = """cat -- "$1/.complete" 2>/dev/null || :"""

_FRESH = """rm -rf -- "$1.new" "$1.tgz" """
"""What a bring-up that was cut off has left."""

_INSTALL = f"""a=$1.tgz n=$1.new
drop() {{ rm -rf -- "$n" "$a"; }}
got=$(sha256sum < "$a") || {{ drop; exit {_NO_TOOL}; }}
[ "${{got%% *}}" = "$2" ] || {{ drop; exit {_WRONG}; }}
mkdir -- "$n" && tar -xzf "$a" -C "$n" || {{ drop; exit {_UNPACK}; }}
[ -x "$4" ] || {{ sh=$(command -v sh) && {{ echo "#!$sh"; sed 1d "$n/py"; }} > "$n/py.sh" &&
  mv -f "$n/py.sh" "$n/py" && chmod 755 "$n/py"; }} || {{ drop; exit {_UNPACK}; }}
printf '%s\\n%s\\n' "$2" "$3" > "$n/.complete" || {{ drop; exit {_UNPACK}; }}
rm -rf -- "$1" && mv -- "$n" "$1" || {{ drop; exit {_UNPACK}; }}
rm -f -- "$a"
for old in "${{1%/*}}"/*/; do
  old=${{old%/}}
  [ "$old" = "$1" ] || {{ {{ read -r _ && read -r name; }} < "$old/.complete" &&
    [ "$name" = "$3" ] && rm -rf -- "$old"; }} 2>/dev/null
done
:"""
"""Arguments: folder to make, sha256, name, shell. The archive lies there as ``<folder>.tgz``.

Hashed before a byte of it is unpacked; other versions of the name go once this one is there. The
launcher's first line is changed where there is no such shell: Python must start itself again.
"""


class Brought(NamedTuple):
    """``python``: the launcher, to be started by ``sh``. ``pushed``: bytes that were sent."""

    python: PurePosixPath
    pushed: int


def bring(
    transport: Transport, bundle: BundleFile, *, device: str, shell: str = "/bin/sh"
) -> Brought:
    """See that the bundle is on the device. ``shell``: the one its launcher was written for.

    Raises InfraError E-BUNDLE-HASH (not the bytes it should be, here or there; nothing is
    unpacked), E-BUNDLE-UNPACK, E-DISK-FULL, and whatever the transport raises.
    """
    folder = transport.root() / "bundles" / bundle.sha256[:16]
    look = transport.run(["sh", "-c", _LOOK, "sh", str(folder)], timeout=LOOK_S)
    if look.stdout.split(b"\n")[0] == bundle.sha256.encode():
        return Brought(folder / "py", 0)
    path = Path(bundle.path)
    transport.run(["sh", "-c", _FRESH, "sh", str(folder)], timeout=UNPACK_FLOOR_S)
    archive = folder.with_name(f"{folder.name}.tgz")
    transport.push(path, archive, timeout=transfer_deadline(bundle.size))
    argv = ["sh", "-c", _INSTALL, "sh", str(folder), bundle.sha256, bundle.name, shell]
    limit = UNPACK_FLOOR_S + bundle.size / UNPACK_BYTES_PER_S
    done = transport.run(argv, timeout=limit)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise _failure(bundle, device, done.returncode, said)
    return Brought(folder / "py", bundle.size)


def transfer_deadline(size: int) -> float:
    """Seconds that a transfer of ``size`` bytes may take."""
    return TRANSFER_FLOOR_S + size / TRANSFER_BYTES_PER_S


def _failure(bundle: BundleFile, device: str, code: int, said: str) -> InfraError:
    if code == _WRONG:
        return InfraError(
            "E-BUNDLE-HASH",
            f"the bundle {bundle.name} that arrived has not the sha256 {bundle.sha256[:12]}",
            where=device,
            fix="build it again, or suspect the link or the device's storage",
        )
    if re.search("no space left|quota exceeded", said, re.IGNORECASE):
        return failures.disk_full(device, f"the bundle {bundle.name}")
    last = said.splitlines()[-1] if said else f"exit {code}"
    return InfraError(
        "E-BUNDLE-UNPACK",
        f"the bundle {bundle.name} cannot be unpacked: {last}",
        where=device,
        fix="it needs sh, tar, gzip and sha256sum, and a root with space for it",
        retryable=code != _NO_TOOL,
    )
