#!/usr/bin/env bash
# The official clients that the fake phones are proven with: adb, idevice_id, ideviceinfo, iproxy; and `ip`, which
# gives a real adbd a network of its own. From the machine's own Debian or Ubuntu.
set -euo pipefail

declare -A packages=([adb]=adb [idevice_id]=libimobiledevice-utils [iproxy]=libusbmuxd-tools [ip]=iproute2)
missing=()
for tool in "${!packages[@]}"; do command -v "$tool" >/dev/null || missing+=("${packages[$tool]}"); done
[ ${#missing[@]} -gt 0 ] || exit 0
[ "$(id -u)" = 0 ] || {
    echo "phones.sh: not installed; run: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
}
apt-get install --yes --quiet --no-install-recommends "${missing[@]}" >/dev/null
