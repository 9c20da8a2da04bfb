#!/bin/sh
# Everything CI needs: Debian packages and virtual boards where this machine can, then all checks.
# Boards that were already up stay up; boards started here are taken down again.
set -eu
export ASSAY_FARM=1
if ! sh infra/virtual_farm/packages.sh; then
    echo "virtual boards: Debian packages could not be installed; their tests will be skipped"
    ASSAY_FARM=0
elif ! .venv/bin/python -m infra.virtual_farm doctor; then
    echo "virtual boards: this machine cannot run them (reasons above); their tests will be skipped"
    ASSAY_FARM=0
else
    was_up=$(.venv/bin/python -m infra.virtual_farm status --json | grep -c '"up": true' || true)
    [ "$was_up" -gt 0 ] || trap '.venv/bin/python -m infra.virtual_farm down' EXIT
    .venv/bin/python -m infra.virtual_farm up
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest
