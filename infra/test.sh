#!/bin/sh
# Everything CI needs: Debian packages and virtual boards where this machine can, then all checks.
# Boards that were already up stay up; boards started here are taken down again.
set -eu
sh infra/packages.sh infra/test-packages.txt || echo "tests over a real sshd will be skipped"
export ASSAY_FARM=0
if ! sh infra/packages.sh infra/virtual_farm/packages.txt; then
    echo "virtual boards: not without these packages; their tests will be skipped"
elif ! .venv/bin/python -m infra.virtual_farm doctor; then
    echo "virtual boards: this machine cannot run them (reasons above); their tests will be skipped"
else
    ASSAY_FARM=1
    .venv/bin/python -m infra.virtual_farm status --json | grep -q '"up": true' ||
        trap '.venv/bin/python -m infra.virtual_farm down' EXIT
    .venv/bin/python -m infra.virtual_farm up
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest
