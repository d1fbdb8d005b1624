// swift-tools-version: 6.0
import PackageDescription

// Linux has neither Core ML and Core Video nor ExecuTorch's Swift package: there, targets of their names (in standin) offer the
// parts that the runners use. The ExecuTorch one runs models for real, with the libraries of the Python wheel, so
// that Linux has an agent, which tools/build_swift.sh builds with the paths that it needs.
#if os(Linux)
  let dependencies: [Package.Dependency] = []
  let platformTargets: [Target] = [
    .target(name: "CoreVideo", path: "standin/CoreVideo"),
    .target(name: "CoreML", dependencies: ["CoreVideo"], path: "standin/CoreML"),
    .systemLibrary(name: "CETShim", path: "standin/CETShim"),
    .target(name: "ExecuTorch", dependencies: ["CETShim"], path: "standin/ExecuTorch"),
    .systemLibrary(name: "CAgentVersion"),
    .target(name: "HostProbe", dependencies: ["BenchKit"]),
    .executableTarget(
      name: "blocktime-agent", dependencies: ["BenchKit", "CAgentVersion", "ExecuTorchRunner", "HostProbe"]),
    .testTarget(name: "ExecuTorchRunnerTests", dependencies: ["BenchKit", "ExecuTorchRunner"]),
    .testTarget(name: "HostProbeTests", dependencies: ["BenchKit", "HostProbe"]),
  ]
  let phoneProbe: [Target.Dependency] = []
  let coreML: [Target.Dependency] = ["CoreML", "CoreVideo"]
  let hasExecuTorch = true
  let execuTorch: [Target.Dependency] = ["CETShim", "ExecuTorch"]
#else
  // BLOCKTIME_EXECUTORCH=0 in the environment leaves ExecuTorch out: Core ML alone, and nothing is downloaded.
  let hasExecuTorch = Context.environment["BLOCKTIME_EXECUTORCH"] != "0"
  // The newest release that ExecuTorch has a Swift package of is 1.5.0: the head of its branch swiftpm-1.5.0, whose
  // own manifest names its libraries with their checksums. There is no swiftpm-1.5.1.
  let execuTorchPackage: [Package.Dependency] = [
    .package(
      url: "https://github.com/pytorch/executorch.git", revision: "56cc93a96d5fb8d21554ec5f00fbad5a5b228bc4")
  ]
  let dependencies = hasExecuTorch ? execuTorchPackage : []
  let platformTargets: [Target] = [
    .target(name: "CAppleMemory"),
    .target(name: "AppleSystem", dependencies: ["BenchKit", "CAppleMemory"]),
    .target(name: "MacProbe", dependencies: ["AppleSystem", "BenchKit"]),
    .systemLibrary(name: "CAgentVersion"),
    .executableTarget(
      name: "blocktime-agent", dependencies: ["BenchKit", "CAgentVersion", "CoreMLRunner", "MacProbe"]),
  ]
  let phoneProbe: [Target.Dependency] = ["AppleSystem"]
  let coreML: [Target.Dependency] = []
  let execuTorch: [Target.Dependency] = [
    "executorch", "backend_coreml", "backend_xnnpack", "kernels_optimized", "kernels_quantized",
  ].map { .product(name: $0, package: "executorch") }
#endif

// One list after the other: as one expression, the compiler takes minutes to find their types.
var targets: [Target] = [
  .target(name: "BenchKit"),
  .target(name: "CoreMLRunner", dependencies: ["BenchKit"] + coreML),
  .target(name: "Fixtures", dependencies: ["BenchKit"], path: "Tests/Fixtures"),
  .testTarget(name: "BenchKitTests", dependencies: ["BenchKit", "Fixtures"]),
  .testTarget(name: "CoreMLRunnerTests", dependencies: ["BenchKit", "CoreMLRunner", "Fixtures"]),
  .testTarget(name: "BenchAppTests", dependencies: ["BenchKit", "BenchApp", "Fixtures"]),
]
targets += platformTargets

var appNeeds: [Target.Dependency] = ["BenchKit", "CoreMLRunner"]
appNeeds += phoneProbe
var appSettings: [SwiftSetting] = []
if hasExecuTorch {
  targets.append(.target(name: "ExecuTorchRunner", dependencies: ["BenchKit"] + execuTorch))
  appNeeds.append("ExecuTorchRunner")
  appSettings.append(.define("EXECUTORCH"))
}
targets.append(.target(name: "BenchApp", dependencies: appNeeds, swiftSettings: appSettings))

// Tests are built with the same optimisation as the agent, so that both share their objects. They reach what
// is not public through the access level `package`; @testable is not available to them.
let package = Package(
  name: "BenchKit",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: [.library(name: "BenchKit", targets: ["BenchKit", "CoreMLRunner", "BenchApp"])],
  dependencies: dependencies,
  targets: targets
)
