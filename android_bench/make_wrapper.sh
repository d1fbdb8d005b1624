#!/bin/sh
# Makes ./gradlew. With the Gradle that is installed, of whatever version; where none is, with the wrapper's own, which
# is downloaded and must have the sha256 of gradle/wrapper/gradle-wrapper.properties.
set -eu
cd "$(dirname "$0")"
[ "${1:-}" != --download ] && command -v gradle >/dev/null && exec gradle -p wrapper wrapper

property() { sed -n "s/^$1=//p" gradle/wrapper/gradle-wrapper.properties | tr -d '\\'; }
sha256() { if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
curl -fsSL -o "$folder/gradle.zip" "$(property distributionUrl)"
found=$(sha256 "$folder/gradle.zip" | cut -d ' ' -f 1)
if [ "$found" != "$(property distributionSha256Sum)" ]; then
    echo "$(property distributionUrl) has the sha256 $found, not the one that is expected: try again, else don't use it" >&2
    exit 1
fi
unzip -q "$folder/gradle.zip" -d "$folder"
"$folder"/gradle-*/bin/gradle -p wrapper wrapper
