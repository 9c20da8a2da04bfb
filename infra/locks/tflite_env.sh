#!/bin/sh
# Make .venv-tflite with the newest Python <= 3.11 found; say so and go on when there is none.
set -eu
mkdir -p .venv-tflite
for python in "$1" python3.11 python3.10 python3.9; do
    "$python" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null || continue
    "$python" -m venv .venv-tflite 2>/dev/null || continue
    .venv-tflite/bin/python -m pip install -q -r infra/locks/tflite.txt
    touch .venv-tflite/.tried
    exit 0
done
echo "tflite-runtime 2.14: no Python 3.9 to 3.11 with venv here; its rows will read 'not available here'"
touch .venv-tflite/.tried
