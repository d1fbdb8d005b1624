#!/usr/bin/env bash
# Builds build/native: libetshim.so and etbench. Does nothing where they were built from the same sources and tools.
# Needs the .venv of this repository (executorch, cmake, ninja) and g++.
#   --jni          also libetjni.so, libaffinity.so and standin.jar, which need a JDK
#   --if-possible  where they can't be built says so in a line, and that all else works without; exits with 0
. "$(dirname "${BASH_SOURCE[0]}")/builds.sh"

out=$root/build/native
cmake=$out/cmake
venv=$root/.venv/bin
standin=android_bench/standin/src
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
[[ -x $venv/python ]] || die "there is no .venv; run make setup"
for tool in cmake ninja; do
  [[ -x $venv/$tool ]] || die "$tool is not in .venv; run make setup"
done
tools=(g++ flock)
[[ $mode != --jni ]] || tools+=(javac jar)
for tool in "${tools[@]}"; do
  command -v "$tool" >/dev/null || die "$tool is not installed (Debian: g++ util-linux, for --jni also openjdk-17-jdk-headless)"
done
locked "$out"

executorch=$("$venv/python" -c 'import importlib.util as u; print(u.find_spec("executorch").submodule_search_locations[0])')
executorch=$(readlink -f "$executorch")
compilers="$executorch $(digest_of "$executorch/version.py") $(g++ --version | head -1)"
jdk=$(jdk)
inputs="$(digest native/{CMakeLists.txt,include,src} tools/build{_native,s}.sh) $compilers"

# CMake's folder can't be used once a place or a tool has changed, and it must look again for a JDK that came later.
configure() {
  [[ ! -f $cmake/.made_for || $(<"$cmake/.made_for") != "$root $compilers $jdk" ]] || return 0
  rm -rf "$cmake"
  mkdir -p "$cmake"
  quietly "$venv/cmake" -S "$root/native" -B "$cmake" -G Ninja \
    -DCMAKE_MAKE_PROGRAM="$venv/ninja" -DCMAKE_PREFIX_PATH="$executorch"
  echo "$root $compilers $jdk" >"$cmake/.made_for"
}

compile() { # TARGET FILE
  configure
  quietly "$venv/ninja" -C "$cmake" "$1"
  cp "$cmake/${2##*/}" "$2"
}

once "$out/libetshim.so" "$inputs" compile etshim
once "$out/etbench" "$inputs" compile etbench
[[ $mode == --jni ]] || exit 0
once "$out/libetjni.so" "$inputs $jdk" compile etjni
once "$out/libaffinity.so" "$inputs $jdk" compile affinity

pack_standin() { # FILE
  local classes=$1.classes
  rm -rf "$classes"
  # Class files like those of the real library (Java 11).
  quietly javac --release 11 -Xlint:all,-serial -Werror -d "$classes" "$root/$standin"/org/pytorch/executorch/*.java
  quietly jar --create --file "$1" -C "$classes" .
}

once "$out/standin.jar" "$(digest "$standin" tools/build{_native,s}.sh) $jdk" pack_standin
