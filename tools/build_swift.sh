#!/usr/bin/env bash
# Builds build/swift/blocktime-agent, the Swift agent for Linux. Quick when nothing changed.
#   --test [ARGUMENTS]   builds and runs the package's tests instead; ARGUMENTS go to `swift test`
# Needs .toolchains/swift (tools/toolchains/swift.sh) and what tools/build_native.sh needs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/build/swift
scratch=$root/build/swift-package
toolchain=$root/.toolchains/swift/usr/libexec/swift/bin

die() {
  echo "build_swift: $*" >&2
  exit 1
}

[[ -x $toolchain/swift ]] || die "there is no Swift toolchain; run make toolchains"
"$root/tools/build_native.sh"

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9

version=$("$root/ios_bench/agent_version.sh")
header="#define BLOCKTIME_AGENT_VERSION \"$version\""
[[ -f $out/agent_version.h && $(<"$out/agent_version.h") == "$header" ]] || echo "$header" >"$out/agent_version.h"

# The library of ExecuTorch is found from where the agent lies, and from where the tests are built.
swift() {
  local command=$1
  shift
  PATH=$toolchain:$PATH "$toolchain/swift" "$command" --configuration release --package-path "$root/ios_bench/BenchKit" \
    --scratch-path "$scratch" -Xlinker "-L$root/build/native" -Xlinker "-rpath=\$ORIGIN/../native" \
    -Xlinker "-rpath=\$ORIGIN/../../../native" "$@"
}

if [[ ${1:-} == --test ]]; then
  shift
  swift test --disable-xctest "$@"
  exit
fi

stamp=$out/.built
[[ ! -x $out/blocktime-agent || ! -f $stamp || $(<"$stamp") != "$version" ]] || exit 0
swift build --product blocktime-agent >"$out/build.log" 2>&1 || {
  cat "$out/build.log" >&2
  die "swift build failed, its output stands above"
}
cp "$scratch/release/blocktime-agent" "$out/blocktime-agent.new"
mv "$out/blocktime-agent.new" "$out/blocktime-agent"
echo "$version" >"$stamp"
