#!/usr/bin/env bash
# Builds build/swift/blocktime-agent, the Swift agent for this machine, unless it was built from the same sources and
# tools. On a Mac it has Core ML and needs Xcode; on Linux it has ExecuTorch and needs .toolchains/swift
# (tools/toolchains/swift.sh) and what tools/build_native.sh needs.
#   --test [ARGUMENTS]   builds and runs the package's tests instead; ARGUMENTS (such as --filter NAME) go to them
if [[ $(uname -s) == Darwin ]]; then
  set -euo pipefail
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  mkdir -p build/swift
  echo "#define BLOCKTIME_AGENT_VERSION \"$(ios_bench/agent_version.sh)\"" >build/swift/agent_version.h
  export BLOCKTIME_EXECUTORCH=0
  options=(--configuration release --package-path ios_bench/BenchKit --scratch-path build/swift-package)
  [[ ${1-} != --test ]] || exec swift test "${options[@]}" "${@:2}"
  swift build "${options[@]}" --product blocktime-agent
  exec cp build/swift-package/release/blocktime-agent build/swift/blocktime-agent
fi

. "$(dirname "${BASH_SOURCE[0]}")/builds.sh"

out=$root/build/swift
scratch=$root/build/swift-package
toolchain=$root/.toolchains/swift/usr/libexec/swift/bin

[[ -x $toolchain/swift ]] || die "there is no Swift toolchain; run make toolchains"
"$root/tools/build_native.sh"
locked "$out"

version=$("$root/ios_bench/agent_version.sh")
inputs="$version $(digest tools/build{_swift,s}.sh) $(digest_of "$root/.toolchains/swift/.installed")"

header() { # FILE
  echo "#define BLOCKTIME_AGENT_VERSION \"$version\"" >"$1"
}

# The library of ExecuTorch is found from where the agent and the tests lie.
compile() { # PROGRAM OPTION... FILE
  PATH=$toolchain:$PATH quietly "$toolchain/swift" build --configuration release \
    --package-path "$root/ios_bench/BenchKit" --scratch-path "$scratch" \
    -Xlinker "-L$root/build/native" -Xlinker "-rpath=\$ORIGIN/../native" "${@:2:$#-2}"
  cp "$scratch/release/$1" "${!#}"
}

once "$out/agent_version.h" "$version" header
if [[ ${1-} == --test ]]; then
  # The tests know where the clone lies, and read protocol/golden there.
  once "$out/tests" "$inputs $(digest ios_bench/BenchKit/Tests) $root" \
    compile BenchKitPackageTests.xctest --build-tests --disable-xctest
  exec 9>&-
  exec "$out/tests" --testing-library swift-testing "${@:2}"
fi
once "$out/blocktime-agent" "$inputs" compile blocktime-agent --product blocktime-agent
