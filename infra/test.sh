#!/bin/sh
# Everything CI needs: Debian packages and virtual boards where this machine can, then all checks.
# Units that were already up stay up; units started here are taken down again.
set -eu
farm=".venv/bin/python -m infra.virtual_farm" pytest=".venv/bin/python -m pytest --durations=15"
started="" first="" log="$(mktemp)"
leave() {
    [ -z "$first" ] || { kill -INT "$first" && wait "$first"; } 2>/dev/null || :
    rm -f "$log"
    [ -z "$started" ] || $farm down
}
trap leave EXIT
trap 'exit 130' INT TERM
sh infra/packages.sh infra/test-packages.txt infra/virtual_farm/phone-packages.txt ||
    echo "tests over a real sshd or adb will be skipped"
export ASSAY_FARM=0 ASSAY_PHONE=0
if ! sh infra/packages.sh infra/virtual_farm/packages.txt; then
    echo "virtual boards: not without these packages; their tests will be skipped"
elif ! $farm doctor boards; then
    echo "virtual boards: this machine cannot run them (reasons above); their tests will be skipped"
else
    units=boards
    if ! command -v adb >/dev/null; then
        echo "emulated phone: adb is not installed; its tests will be skipped"
    elif ! $farm doctor phones; then
        echo "emulated phone: not here (reasons above); its tests will be skipped"
    else
        units="boards phones" ASSAY_PHONE=1
    fi
    ASSAY_FARM=1
fi
# What uses boards, phone, hubs or this machine as a device runs by itself; beside it all the rest,
# with the end-to-end tests that bring devices of their own, from before the boards are up.
beside="tests/contract tests/unit tests/integration" not_beside="--ignore=tests/integration/test_hubs.py"
alone="tests/e2e tests/integration/test_hubs.py" not_alone="" code=0
for name in agreement bad_input by_class cli devices_trust explain fingerprint layers lineage order sql \
    store_check trouble variance_by_layer; do
    beside="$beside tests/e2e/test_$name.py"
    not_alone="$not_alone --ignore=tests/e2e/test_$name.py"
done
# shellcheck disable=SC2086 # lists of words
$pytest -m "not farm and not phone" $beside $not_beside >"$log" 2>&1 &
first=$!
if [ "$ASSAY_FARM" = 1 ]; then
    $farm status --json | grep -q '"up": true' || started=yes
    # shellcheck disable=SC2086 # a list of names
    $farm up $units
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
$pytest -m "farm or phone" tests/contract tests/unit tests/integration || code=$?
# shellcheck disable=SC2086
$pytest $alone $not_alone || code=$?
wait "$first" || code=$?
first=""
cat "$log"
exit "$code"
