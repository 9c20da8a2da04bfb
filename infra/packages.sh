#!/bin/sh
# packages.sh LIST...: install the Debian packages named in the list files that are missing.
# Exit 3 where that cannot be done.
set -eu
missing=""
for package in $(sed 's/#.*//' "$@"); do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
        missing="$missing $package"
done
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    [ -n "$missing" ] || exit 0
    echo "missing Debian packages:$missing (install them with apt-get as root)"
    exit 3
fi
export DEBIAN_FRONTEND=noninteractive
# The farm asks apt for its boards' packages too, so the lists must be there in any case.
if [ -n "$missing" ] || ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
    apt-get update -qq
fi
[ -n "$missing" ] || exit 0
# Wanted as programs, not as running services: Debian asks this file before it starts any.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086 # a list of names
apt-get install -y -qq --no-install-recommends $missing >/dev/null
