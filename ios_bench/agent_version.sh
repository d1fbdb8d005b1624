#!/usr/bin/env bash
# Prints the version of the Swift agent: the release, and a digest of the sources that decide what it measures
# and how. For tools/build_swift.sh and for the build phase of the app; runs on Linux and macOS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C

release=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml | head -1)
if command -v sha256sum >/dev/null; then sum=(sha256sum); else sum=(shasum -a 256); fi
digest=$(find ios_bench/BenchKit/{Package.swift,Sources,standin} native/{include,src} -type f |
    sort | xargs "${sum[@]}" | "${sum[@]}" | cut -c1-16)
echo "$release+$digest"
