#!/bin/sh
# Install the Debian packages of the virtual farm that are missing. Exit 3 where that cannot be done.
set -eu
missing=""
for package in $(sed 's/#.*//' infra/virtual_farm/packages.txt); do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "virtual boards: missing packages:$missing (install them with apt-get as root)"
    exit 3
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of names
apt-get install -y -qq --no-install-recommends $missing >/dev/null
