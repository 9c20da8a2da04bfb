#!/bin/sh
# Make .venv-tflite with the newest Python <= 3.11 found. Where that cannot be, say why and go on: the
# rows of tflite-runtime then read "not available here". What failed is tried again by the next make,
# and no environment without the runtime in it is left behind.
set -eu
failed=""
why() { # the line of a program's output that says what went wrong
    printf '%s\n' "$1" | grep -E '^(ERROR|Error)' | tail -n 1 | grep . || printf '%s\n' "$1" | tail -n 1
}
for python in "$1" python3.11 python3.10 python3.9; do
    "$python" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null || continue
    rm -rf .venv-tflite
    if said=$("$python" -m venv .venv-tflite 2>&1) &&
        said=$(.venv-tflite/bin/python -m pip install -q -r infra/locks/tflite.txt 2>&1); then
        touch .venv-tflite/.tried
        exit 0
    fi
    failed="$failed; $python: $(why "$said")"
done
rm -rf .venv-tflite
if [ -z "$failed" ]; then
    mkdir .venv-tflite
    touch .venv-tflite/.tried
fi
failed="${failed#; }"
echo "tflite-runtime 2.14: its rows will read 'not available here': ${failed:-no Python 3.9 to 3.11}" >&2
