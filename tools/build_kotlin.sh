#!/usr/bin/env bash
# Builds build/kotlin: the jars of the Kotlin agent and the script blocktime-agent that starts it on this machine.
# With --tests also tests.jar. Quick when nothing changed. Needs .toolchains/kotlin and build/native, which it makes.
. "$(dirname "${BASH_SOURCE[0]}")/builds.sh"

out=$root/build/kotlin
native=$root/build/native
toolchain=$root/.toolchains/kotlin
junit=/usr/share/java/junit-platform-console-standalone.jar

[[ ${1-} == "" || ${1-} == --tests ]] || die "unknown option $1; there is --tests"
[[ -x $toolchain/kotlinc ]] || die "the Kotlin compiler is not installed; run tools/toolchains/kotlin.sh"
"$root/tools/build_native.sh" --jni
locked "$out"

compiler="$(digest tools/build{_kotlin,s}.sh) $(digest_of "$toolchain/.packages") $(jdk)"

# module NAME TARGET JARS SOURCES... [-- OPTIONS...]: $out/NAME.jar for the JVM of TARGET, from folders of android_bench
module() {
  local name=$1 target=$2 jars=$3 sources=() options=()
  shift 3
  while (($#)) && [[ $1 != -- ]]; do
    sources+=("android_bench/$1")
    shift
  done
  options=("${@:2}")
  once "$out/$name.jar" "$(digest "${sources[@]}") $(digest_of ${jars//:/ }) $compiler" kotlinc "$target" "$jars"
}

kotlinc() { # TARGET JARS FILE
  quietly "$toolchain/kotlinc" -Werror -cp "$2" -jvm-target "$1" "${options[@]}" "${sources[@]/#/$root/}" -d "$3"
}

stdlib=$toolchain/node_modules/kotlin-compiler/lib/kotlin-stdlib.jar
for jar in "$stdlib" "$native/standin.jar"; do
  once "$out/${jar##*/}" "$(digest_of "$jar")" cp "$jar"
done
# Against Java 8's classes, as Gradle compiles it: the app runs on Android, which lacks much of what this JDK has.
module core 1.8 "$out/kotlin-stdlib.jar" core/src/main/kotlin -- -Xjdk-release=1.8
module executorch 1.8 "$out/core.jar:$out/standin.jar" executorch/src/main/kotlin
module jvm 17 "$out/core.jar:$out/executorch.jar:$out/standin.jar" jvm/src/main/kotlin
if [[ ${1-} == --tests ]]; then
  modules=$out/core.jar,$out/executorch.jar,$out/jvm.jar
  module tests 17 "${modules//,/:}:$out/standin.jar:$junit" {core,executorch,jvm}/src/test/kotlin -- "-Xfriend-paths=$modules"
fi

launcher() { # VERSION FILE
  local executorch
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
    echo "  -Ddev.blocktime.version=$1 -Ddev.blocktime.executorch=$executorch \\"
    # shellcheck disable=SC2016
    echo '  -cp "$here/jvm.jar:$here/executorch.jar:$here/core.jar:$here/standin.jar:$here/kotlin-stdlib.jar" \
  dev.blocktime.jvm.MainKt "$@"'
  } >"$2"
  chmod +x "$2"
}

release=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
version=$release+$(digest android_bench/{core,executorch,jvm}/src/main android_bench/standin/src native tools/build_kotlin.sh)
once "$out/blocktime-agent" "$version $(digest_of "$native/.libetjni.so.inputs")" launcher "$version"
