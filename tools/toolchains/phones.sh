#!/usr/bin/env bash
# `ip`, which gives the real adb daemon of a test a network of its own. From the machine's own Debian or Ubuntu.
set -euo pipefail
. "$(dirname "$0")/apt.sh"

command -v ip >/dev/null && exit 0
[ "$(id -u)" = 0 ] || {
    echo "phones.sh: not installed; run: sudo apt-get install --no-install-recommends iproute2" >&2
    exit 1
}
apt_get install --yes --no-install-recommends iproute2
