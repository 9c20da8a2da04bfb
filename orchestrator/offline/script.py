"""``run.sh`` of a packed archive: POSIX sh, for dash, busybox, mksh and toybox alike."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from device_worker.archive import BUNDLES, MANIFEST_FILE, PYTHONS, START, WORKER

_UNPACK = f"""
# Brings the hermetic Python of that sha256 into ./{PYTHONS}, once.
unpack() {{
  into={PYTHONS}/$1
  [ -f "$into/.complete" ] && return
  got=$(sha256sum < "{BUNDLES}/$1.tar.gz") || die "sha256sum is missing on this device"
  [ "${{got%% *}}" = "$2" ] ||
    die "{BUNDLES}/$1.tar.gz is damaged: unpack the archive again [E-BUNDLE-HASH]"
  rm -rf "$into"
  mkdir -p "$into" && tar -xzf "{BUNDLES}/$1.tar.gz" -C "$into" && : > "$into/.complete" || {{
    rm -rf "$into"
    die "the Python in {BUNDLES}/$1.tar.gz cannot be unpacked: is there space? [E-BUNDLE-UNPACK]"
  }}
}}
"""

_SCRIPT = """\
#!/bin/sh
# Runs @COUNT@ packed cell(s) of the run @RUN@ for @DEVICE@ here, without any network, and writes
# @RESULT@ beside this file. Take that back to the farm: assay ingest @RESULT@
#
#     sh run.sh [PYTHON]
#
# PYTHON: an interpreter to use instead of those that the farm's inventory names.
die() {
  echo "assay: $*" >&2
  exit 3
}
python=$1
case $python in
  /* | '') ;;
  */*) python=$PWD/$python ;;
esac
case $0 in
  */*) cd "${0%/*}" || die "cannot enter the folder of $0" ;;
esac
for file in @FILES@; do
  [ -f "$file" ] || die "$file is missing: unpack the archive again"
done
@UNPACK@
if [ -n "$python" ]; then
  set -- "$python"
else
  @DEFAULT@
fi
name="name one with sh run.sh PYTHON [E-DEVICE-PYTHON]"
[ -x "$(command -v "$1")" ] || die "there is no Python at $1: $name"
"$@" @START@ @WORKER@ @WORKER_SHA256@ \\
  offline --folder . --manifest @MANIFEST_SHA256@ ${python:+--python "$python"}
code=$?
case $code in
  0) ;;
  97 | 98) die "@WORKER@ is damaged: unpack the archive again [E-WORKER-HASH]" ;;
  126 | 127) die "Python cannot be started: $name" ;;
  129 | 13[1-9] | 14?) die "ended by signal $((code - 128)), no result was written" ;;
esac
exit $code
"""


def run_script(
    *,
    run: str,
    device: str,
    count: int,
    result: str,
    python: str,
    bundle: str | None,
    bundles: Mapping[str, int],
    worker_sha256: str,
    manifest_sha256: str,
) -> str:
    """The script. ``python``, ``bundle``: of the process that starts the others (PackedJob)."""
    default = f"set -- {shlex.quote(python)}"
    if bundle is not None:
        default = f"set -- sh {PYTHONS}/{bundle[:16]}/py"
    brought = [f"  unpack {sha256[:16]} {sha256}" for sha256 in sorted(bundles)]
    unpack = [_UNPACK, 'if [ -z "$python" ]; then', *brought, "fi"] if brought else []
    parts = {
        "RUN": _plain(run),
        "DEVICE": _plain(device),
        "COUNT": str(count),
        "RESULT": result,
        "FILES": f"{MANIFEST_FILE} {START} {WORKER}",
        "UNPACK": "\n".join(unpack),
        "DEFAULT": default,
        "START": START,
        "WORKER_SHA256": worker_sha256,
        "WORKER": WORKER,
        "MANIFEST_SHA256": manifest_sha256,
    }
    text = _SCRIPT
    for name, value in parts.items():
        text = text.replace(f"@{name}@", value)
    return text


def _plain(name: str) -> str:
    """For a comment: nothing that could end its line."""
    return "".join(c if c.isprintable() else "?" for c in name)
