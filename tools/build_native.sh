#!/usr/bin/env bash
# Builds build/native: libetshim.so, libetjni.so, etbench and standin.jar. Quick when nothing changed.
# Needs the .venv of this repository (executorch, cmake, ninja), g++ and a JDK.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/build/native
python=$root/.venv/bin/python
standin=$root/android_bench/standin/src

die() {
  echo "build_native: $*" >&2
  exit 1
}

[[ -x $python ]] || die "there is no .venv; run make install"
for tool in cmake ninja; do
  [[ -x $root/.venv/bin/$tool ]] || die "$tool is not in .venv; run make install"
done
for tool in g++ javac jar flock; do
  command -v "$tool" >/dev/null || die "$tool is not installed (Debian: g++ openjdk-17-jdk-headless util-linux)"
done

mkdir -p "$out/cmake"
exec 9>"$out/.lock"
flock 9

log=$out/build.log
quietly() {
  "$@" >"$log" 2>&1 || { cat "$log" >&2; die "$1 failed, its output stands above"; }
}

executorch=$("$python" -c 'import importlib.util as u; print(u.find_spec("executorch").submodule_search_locations[0])')
# CMake's folder knows both places, so it can't be used once one of them has moved.
places="$root $executorch"
stamp=$out/cmake/.places
if [[ ! -f $out/cmake/build.ninja || ! -f $stamp || $(<"$stamp") != "$places" ]]; then
  rm -rf "$out/cmake" && mkdir "$out/cmake"
  quietly "$root/.venv/bin/cmake" -S "$root/native" -B "$out/cmake" -G Ninja \
    -DCMAKE_MAKE_PROGRAM="$root/.venv/bin/ninja" -DCMAKE_PREFIX_PATH="$executorch" \
    -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$out" -DCMAKE_RUNTIME_OUTPUT_DIRECTORY="$out"
  printf %s "$places" >"$stamp"
fi
quietly "$root/.venv/bin/ninja" -C "$out/cmake"

if [[ ! -f $out/standin.jar || -n $(find "$standin" -newer "$out/standin.jar" -print -quit) ]]; then
  classes=$(mktemp -d)
  trap 'rm -rf "$classes"' EXIT
  # Class files like those of the real library (Java 11).
  quietly javac --release 11 -Xlint:all,-serial -Werror -d "$classes" "$standin"/org/pytorch/executorch/*.java
  quietly jar --create --file "$out/standin.jar.new" -C "$classes" .
  mv "$out/standin.jar.new" "$out/standin.jar"
fi
