#!/bin/sh
# Python of a hermetic bundle: from any folder, in any shell (dash, mksh, toybox, busybox).
case $0 in
/*) D=${0%/*} ;;
*/*) D=$PWD/${0%/*} ;;
*) D=$PWD ;;
esac
# Libraries of the system's own C library would not fit, and a path exported to children breaks
# theirs: it is given to our loader alone.
unset LD_PRELOAD LD_LIBRARY_PATH
if [ -z "$TMPDIR" ] && [ ! -w /tmp ]; then
    export TMPDIR="$D/tmp"
fi
export HOME="${HOME:-$D}" PYTHONHOME="$D" PYTHONPATH="$D/site"
# No locale is set: a system without its data would complain in every process.
export PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 PYTHONUTF8=1 PYTHONCOERCECLOCALE=0
export ORT_DISABLE_TELEMETRY=1
exec "$D/lib/@LOADER@" --inhibit-cache --library-path "$D/lib" --argv0 "$D/py" \
    "$D/bin/@PYTHON@" "$@"
