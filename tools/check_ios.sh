#!/usr/bin/env bash
# Checks the iPhone app where there is no Mac, in build/ios: its views, its probe, its entry point and the test that device
# farms run are type-checked against declarations of SwiftUI, UIKit, XCTest and Darwin that follow Apple's documentation (ios_bench/typecheck).
# Does nothing where no input of it changed since it last ended well.
. "$(dirname "${BASH_SOURCE[0]}")/builds.sh"

out=$root/build/ios
toolchain=$root/.toolchains/swift/usr/libexec/swift/bin
kit=ios_bench/BenchKit
app=ios_bench/App
stubs=ios_bench/typecheck

[[ -x $toolchain/swiftc ]] || die "there is no Swift toolchain; run make toolchains"
locked "$out"
cd "$root"

module() { # FOLDER NAME LANGUAGE SOURCES AND OPTIONS...: compiled into FOLDER, where it finds the others
  PATH=$toolchain:$PATH quietly swiftc -emit-module -emit-module-path "$1/$2.swiftmodule" -module-name "$2" \
    -parse-as-library -swift-version "$3" -package-name benchkit -warnings-as-errors \
    -I "$1" -I $kit/standin/CETShim -I $kit/Sources/CAppleMemory/include "${@:4}"
}

# The package's modules are compiled first: they must see Linux, where there is no Darwin.
modules() { # FOLDER
  local name folder
  mkdir "$1"
  for name in BenchKit CoreVideo CoreML CoreMLRunner ExecuTorch ExecuTorchRunner; do
    folder=$kit/Sources/$name
    [[ -d $folder ]] || folder=$kit/standin/$name
    mapfile -t sources < <(find "$folder" -name '*.swift')
    module "$1" "$name" 6 "${sources[@]}" -Xfrontend -experimental-skip-all-function-bodies
  done
  for name in Darwin:5 UIKit:6 SwiftUI:6 XCTest:5 os:5; do
    module "$1" "${name%:*}" "${name#*:}" "$stubs/${name%:*}.swift" -Xfrontend -experimental-skip-all-function-bodies
  done
}

type_check() { # FOLDER
  local source
  cp -r "$out/modules" "$1"
  module "$1" AppleSystem 6 $kit/Sources/AppleSystem/*.swift
  sed 's/#if os(macOS)/#if true/' $kit/Sources/MacProbe/MacProbe.swift >"$1/MacProbe.swift"
  module "$1" MacProbe 6 "$1/MacProbe.swift"
  rm "$1/MacProbe.swift"
  for source in "$kit"/Sources/BenchApp/*.swift; do
    sed 's/#if os(iOS)/#if true/' "$source" >"$1/${source##*/}"
  done
  module "$1" BenchApp 6 "$1"/*.swift -D EXECUTORCH
  module "$1" Bench 6 $app/Bench/*.swift
  module "$1" BenchTests 6 $app/BenchTests/*.swift
  rm "$1"/*.swift
  sed 's/#if os(macOS)/#if true/' $kit/Sources/blocktime-agent/Machine.swift >"$1/Machine.swift"
  module "$1" Agent 6 "$1/Machine.swift" $kit/Sources/blocktime-agent/Options.swift
}

inputs="$(digest $kit/Sources $kit/standin $stubs native/include tools/check_ios.sh tools/builds.sh)"
inputs+=" $(digest_of .toolchains/swift/.installed)"
once "$out/modules" "$inputs" modules
once "$out/checked" "$inputs $(digest $app/Bench $app/BenchTests)" type_check
