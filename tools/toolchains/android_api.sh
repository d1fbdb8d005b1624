#!/usr/bin/env bash
# What checks the Android app where there is no Android SDK, into .toolchains/android_api:
#   android-23.jar, dx.jar, asm.jar   from Debian bullseye: the last android.jar that Debian packages, a dexer, a class-file library
#   framework-res.apk                 from Debian trixie: Android 13's resources, for aapt
#   executorch-android-api.jar        the classes of ExecuTorch's Android library, from an npm package that ships them,
#   libexecutorch-arm64.so            with the native half for phones
# aapt, zipalign, apksigner and dexdump come from the machine's own Debian or Ubuntu.
# Debian's mirror is taken from apt's sources; set DEBIAN_MIRROR where they name none (Ubuntu).
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/toolchains/apt.sh
dest=$PWD/.toolchains/android_api

bullseye_packages="libandroid-23-java dalvik-exchange libasm-java"
trixie_packages="android-framework-res"
npm_package=react-native-executorch@0.9.3
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
digests="
4475aa3fe1fc28bdb87ae6351d6ccff58f344a1b9e2fe685f7a6fee41ba68613  android-23.jar
33fa9ae74e3fec5472170bde4e69e96d1fa46408ea4e4c3b657d255ab9199ee5  dx.jar
78f3d95f27d3fd924995447152e0746ca9949eef60db84b4e07f0dd14df07e5c  asm.jar
d6b63816ac0831759ee79835ee1546191551bc0b58ac8f85396b8a6d121320b1  executorch-android-api.jar
1de9b8f3ab0ba711aeddc76516554c80a82814e5c3a8f36a0dcfdfb6be069120  libexecutorch-arm64.so
dc4ad5f3fa6323c490a55b8898765ee98c7a957e3c096b86e2319b900434ab31  framework-res.apk"

fail() { echo "android_api.sh: $*" >&2; exit 1; }

missing=()
for tool in aapt zipalign apksigner dexdump; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || fail "${missing[*]} not installed; run: sudo apt-get install --no-install-recommends ${missing[*]}"
    apt_get install --yes --no-install-recommends "${missing[@]}"
fi

complete() { (cd "$dest" && sha256sum --check --status <<<"${digests:1}" 2>/dev/null); }
mkdir -p "$dest"
exec 9>"$dest/.lock"
flock 9
if complete; then exit 0; fi

[ -f "$keyring" ] || fail "no $keyring; install debian-archive-keyring"
command -v npm >/dev/null || fail "npm not found; install npm (Debian, Ubuntu: apt-get install npm)"
mirror=${DEBIAN_MIRROR:-$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^#' |
    grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1 | tr -d ' ' || true)}
[ -n "$mirror" ] || fail "apt's sources name no Debian mirror; set DEBIAN_MIRROR to one"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/etc/{apt.conf.d,preferences.d,sources.list.d} "$work"/state/lists/partial "$work"/cache/archives/partial
: >"$work/status"
for suite in bullseye trixie; do echo "deb [signed-by=$keyring] $mirror $suite main"; done >"$work/etc/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::Etc "$work/etc"; Dir::State "$work/state"; Dir::State::status "$work/status"; Dir::Cache "$work/cache";
APT::Sandbox::User ""; Acquire::Languages "none";
CONF

cd "$work"
export APT_CONFIG=$work/apt.conf
apt_get update || fail "cannot read $mirror"
# shellcheck disable=SC2086
apt_get download $(printf '%s/bullseye ' $bullseye_packages) $(printf '%s/trixie ' $trixie_packages) ||
    fail "cannot download Debian's packages from $mirror"
for package in *.deb; do dpkg-deb --extract "$package" files; done
npm pack --silent "$npm_package" >/dev/null || fail "npm cannot download $npm_package"
library=package/third-party/android/libs/executorch/arm64-v8a/libexecutorch.so
tar -xzf ./*.tgz package/android/libs/classes.jar "$library"

cp files/usr/share/java/com.android.android-23.jar "$dest/android-23.jar"
cp -L files/usr/share/java/com.android.dx-10.0.0.jar "$dest/dx.jar"
cp -L files/usr/share/java/asm.jar "$dest/asm.jar"
cp files/usr/share/android-framework-res/framework-res.apk "$dest/framework-res.apk"
cp package/android/libs/classes.jar "$dest/executorch-android-api.jar"
cp "$library" "$dest/libexecutorch-arm64.so"
complete || fail "what was downloaded is not what is expected: digests differ"
