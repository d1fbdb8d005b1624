#!/usr/bin/env bash
# Builds build/native: libetshim.so and etbench. Quick when nothing changed.
# Needs the .venv of this repository (executorch, cmake, ninja) and g++.
#   --jni          also libetjni.so and standin.jar, which need a JDK
#   --if-possible  where they can't be built says so in a line, and that all else works without; exits with 0
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/build/native
python=$root/.venv/bin/python
standin=$root/android_bench/standin/src
mode=${1-}

die() {
  echo "build_native: $*" >&2
  [[ $mode != --if-possible ]] || {
    echo "build_native: the host agent times through ExecuTorch's Python binding instead, which adds some microseconds to each call" >&2
    exit 0
  }
  exit 1
}

[[ $mode == "" || $mode == --jni || $mode == --if-possible ]] || die "unknown option $mode; there are --jni and --if-possible"
[[ $(uname) == Linux ]] || die "this builds on Linux alone"
[[ -x $python ]] || die "there is no .venv; run make setup"
for tool in cmake ninja; do
  [[ -x $root/.venv/bin/$tool ]] || die "$tool is not in .venv; run make setup"
done
targets=(etshim etbench)
tools=(g++ flock)
if [[ $mode == --jni ]]; then
  targets+=(etjni)
  tools+=(javac jar)
fi
for tool in "${tools[@]}"; do
  command -v "$tool" >/dev/null || die "$tool is not installed (Debian: g++ util-linux, for --jni also openjdk-17-jdk-headless)"
done

mkdir -p "$out/cmake"
exec 9>"$out/.lock"
flock 9

log=$out/build.log
quietly() {
  "$@" >"$log" 2>&1 || { cat "$log" >&2; die "$1 failed, its output stands above"; }
}

executorch=$("$python" -c 'import importlib.util as u; print(u.find_spec("executorch").submodule_search_locations[0])')
# What CMake's folder knows: it can't be used once a place has moved, and it must look again for a JDK that came later.
places="$root $executorch $(command -v javac || true)"
stamp=$out/cmake/.places
if [[ ! -f $out/cmake/build.ninja || ! -f $stamp || $(<"$stamp") != "$places" ]]; then
  rm -rf "$out/cmake" && mkdir "$out/cmake"
  quietly "$root/.venv/bin/cmake" -S "$root/native" -B "$out/cmake" -G Ninja \
    -DCMAKE_MAKE_PROGRAM="$root/.venv/bin/ninja" -DCMAKE_PREFIX_PATH="$executorch" \
    -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$out" -DCMAKE_RUNTIME_OUTPUT_DIRECTORY="$out"
  printf %s "$places" >"$stamp"
fi
quietly "$root/.venv/bin/ninja" -C "$out/cmake" "${targets[@]}"

[[ $mode == --jni ]] || exit 0
if [[ ! -f $out/standin.jar || -n $(find "$standin" -newer "$out/standin.jar" -print -quit) ]]; then
  classes=$(mktemp -d)
  trap 'rm -rf "$classes"' EXIT
  # Class files like those of the real library (Java 11).
  quietly javac --release 11 -Xlint:all,-serial -Werror -d "$classes" "$standin"/org/pytorch/executorch/*.java
  quietly jar --create --file "$out/standin.jar.new" -C "$classes" .
  mv "$out/standin.jar.new" "$out/standin.jar"
fi
