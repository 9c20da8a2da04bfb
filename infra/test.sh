#!/bin/sh
# Everything CI needs: Debian packages and virtual boards where this machine can, then all checks.
# Units that were already up stay up; units started here are taken down again.
set -eu
farm=".venv/bin/python -m infra.virtual_farm" pytest=".venv/bin/python -m pytest --durations=15"
started="" beside="" logs="$(mktemp -d)"
leave() {
    for pid in $beside; do { kill -INT "$pid" && wait "$pid"; } 2>/dev/null || :; done
    rm -rf "$logs"
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
.venv/bin/python -m tests.support.isa
# A unit is used by one run at a time, and so is this machine as a device; most of a run is waiting for
# units. So side by side: from before the boards are up, what needs no unit or brings its own; then what may
# use any unit; after it what keeps to the phone, qemu-nehalem and hubs of its own, and the commands that need
# no unit, beside what uses the others.
none="agreement bad_input by_class cli devices_trust explain fingerprint layers lineage order sql store_check
    trouble variance_by_layer"
any="all_kinds coral_standin device_facts devices_check virtual_farm"
few="interrupt kill_and_resume phone_trouble thermal"
e2e() { for name in $2; do printf ' %stests/e2e/test_%s.py' "$1" "$name"; done; }
hubs="tests/integration/test_hubs.py" code=0
# shellcheck disable=SC2046,SC2086 # lists of words
{
    $pytest -m "not farm and not phone" tests/contract tests/unit tests/integration --ignore=$hubs \
        >"$logs/none" 2>&1 &
    first="$!" beside="$!"
    if [ "$ASSAY_FARM" = 1 ]; then
        $farm status --json | grep -q '"up": true' || started=yes
        $farm up $units
    fi
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    $pytest $(grep -rlE --include='*.py' 'mark\.(farm|phone)' tests/contract tests/unit tests/integration) \
        -m "farm or phone" || code=$?
    $pytest $(e2e "" "$any") || code=$?
    $pytest $(e2e "" "$few") $hubs $(e2e "" "$none") >"$logs/few" 2>&1 &
    second="$!" beside="$first $!"
    $pytest tests/e2e $(e2e --ignore= "$none $any $few") || code=$?
    for pid in $first $second; do wait "$pid" || code=$?; done
    beside=""
}
cat "$logs/none" "$logs/few"
exit "$code"
