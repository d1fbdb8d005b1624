#!/usr/bin/env bash
# Builds build/kotlin: the jars of the Kotlin agent and the script blocktime-agent that starts it on this machine.
# With --tests also tests.jar. Quick when nothing changed. Needs .toolchains/kotlin and build/native, which it makes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/build/kotlin
bench=$root/android_bench
toolchain=$root/.toolchains/kotlin
junit=/usr/share/java/junit-platform-console-standalone.jar

die() {
  echo "build_kotlin: $*" >&2
  exit 1
}

[[ ${1-} == "" || ${1-} == --tests ]] || die "unknown option $1; there is --tests"
[[ -x $toolchain/kotlinc ]] || die "the Kotlin compiler is not installed; run tools/toolchains/kotlin.sh"
command -v flock >/dev/null || die "flock is not installed (Debian: util-linux)"
"$root/tools/build_native.sh" --jni

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9

digest() { # of the names and contents of all files under the given folders, whatever the clone's place
  (cd "$root" && find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
}

# compile JAR CLASSPATH SOURCES... [-- OPTIONS...]: into $out/JAR, unless it was made from the same sources and jars
compile() {
  local jar=$1 classpath=$2 sources=() inputs
  shift 2
  while (($#)) && [[ $1 != -- ]]; do
    sources+=("$1")
    shift
  done
  inputs=$(cd "$root" && { digest "${sources[@]#"$root"/}"; echo "$*"; sha256sum ${classpath//:/ }; } | sha256sum)
  [[ -f $out/$jar && -f $out/.$jar.inputs && $(<"$out/.$jar.inputs") == "$inputs" ]] && return
  # Renamed when it is whole: an agent that starts now finds the old one.
  "$toolchain/kotlinc" -Werror -cp "$classpath" "${@:2}" -d "$out/new-$jar" "${sources[@]}" >"$out/build.log" 2>&1 ||
    { cat "$out/build.log" >&2; die "compiling $jar failed, the compiler's output stands above"; }
  mv "$out/new-$jar" "$out/$jar"
  echo "$inputs" >"$out/.$jar.inputs"
}

stdlib=$toolchain/node_modules/kotlin-compiler/lib/kotlin-stdlib.jar
cmp -s "$stdlib" "$out/kotlin-stdlib.jar" || cp "$stdlib" "$out/kotlin-stdlib.jar"
cmp -s "$root/build/native/standin.jar" "$out/standin.jar" || cp "$root/build/native/standin.jar" "$out/standin.jar"
compile core.jar "$out/kotlin-stdlib.jar" "$bench/core/src/main/kotlin" -- -jvm-target 1.8
compile executorch.jar "$out/core.jar:$out/standin.jar" "$bench/executorch/src/main/kotlin" -- -jvm-target 1.8
compile jvm.jar "$out/core.jar:$out/executorch.jar:$out/standin.jar" "$bench/jvm/src/main/kotlin" -- -jvm-target 17

if [[ ${1-} == --tests ]]; then
  modules=$out/core.jar,$out/executorch.jar,$out/jvm.jar
  tests=("$bench"/{core,executorch,jvm}/src/test/kotlin)
  compile tests.jar "${modules//,/:}:$out/standin.jar:$junit" "${tests[@]}" -- -jvm-target 17 "-Xfriend-paths=$modules"
fi

release=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
sources=(android_bench/{core,executorch,jvm}/src/main android_bench/standin/src native tools/build_kotlin.sh)
executorch=$("$root/.venv/bin/python" -c 'from executorch.version import __version__; print(__version__)')
{
  echo "#!/bin/sh
# Starts the Kotlin agent of blocktime; its options stand in protocol/PROTOCOL.md, \"Agents as programs\"."
  # Steady timing: one collector without threads of its own and a heap of fixed size whose young part holds the litter
  # of a whole run; one compiler that compiles early, and never guesses and takes back; no counters written to a file.
  # A crash of the runtime says so in the agent's log instead of a file in whatever folder it was started from.
  cat <<'SCRIPT'
here=$(dirname "$(readlink -f "$0")")
exec java -XX:+UseSerialGC -Xms512m -Xmx512m -Xmn320m -XX:MaxDirectMemorySize=2g \
  -XX:TieredStopAtLevel=1 -XX:CompileThresholdScaling=0.1 -XX:-UsePerfData \
  -XX:+ErrorFileToStderr -XX:-CreateCoredumpOnCrash -Djava.library.path="$here/../native" \
SCRIPT
  echo "  -Ddev.blocktime.version=$release+$(digest "${sources[@]}") -Ddev.blocktime.executorch=$executorch \\"
  # shellcheck disable=SC2016
  echo '  -cp "$here/jvm.jar:$here/executorch.jar:$here/core.jar:$here/standin.jar:$here/kotlin-stdlib.jar" \
  dev.blocktime.jvm.MainKt "$@"'
} >"$out/blocktime-agent.new"
chmod +x "$out/blocktime-agent.new"
mv "$out/blocktime-agent.new" "$out/blocktime-agent"
