#!/usr/bin/env bash
# Every toolchain that can be had here, into .toolchains. One that can't leaves a line here, and its tests skip.
set -uo pipefail
cd "$(dirname "$0")"
. ./apt.sh

if [ "$(id -u)" = 0 ] && ! apt-cache policy iproute2 2>/dev/null | grep -q http; then
    apt_get update || true
fi
for name in phones kotlin swift android_api; do
    bash "./$name.sh" || echo "toolchain $name can't be had here; its tests will skip" >&2
done
