// swift-tools-version: 6.0
import PackageDescription

// Linux has neither Core ML nor ExecuTorch's Swift package: there, targets of their names (in standin) offer the
// parts that the runners use. The ExecuTorch one runs models for real, with the libraries of the Python wheel, so
// that Linux has an agent, which tools/build_swift.sh builds with the paths that it needs.
#if os(Linux)
  let dependencies: [Package.Dependency] = []
  let platformTargets: [Target] = [
    .target(name: "CoreML", path: "standin/CoreML"),
    .systemLibrary(name: "CETShim", path: "standin/CETShim"),
    .target(name: "ExecuTorch", dependencies: ["CETShim"], path: "standin/ExecuTorch"),
    .systemLibrary(name: "CAgentVersion"),
    .target(name: "HostProbe", dependencies: ["BenchKit"]),
    .executableTarget(
      name: "blocktime-agent", dependencies: ["BenchKit", "CAgentVersion", "ExecuTorchRunner", "HostProbe"]),
    .testTarget(name: "ExecuTorchRunnerTests", dependencies: ["BenchKit", "ExecuTorchRunner"]),
    .testTarget(name: "HostProbeTests", dependencies: ["BenchKit", "HostProbe"]),
  ]
  let coreML: [Target.Dependency] = ["CoreML"]
  let execuTorch: [Target.Dependency] = ["CETShim", "ExecuTorch"]
#else
  let dependencies: [Package.Dependency] = [
    .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.1")
  ]
  let platformTargets: [Target] = []
  let coreML: [Target.Dependency] = []
  let execuTorch: [Target.Dependency] = [
    "executorch", "backend_coreml", "backend_xnnpack", "kernels_optimized", "kernels_quantized",
  ].map { .product(name: $0, package: "executorch") }
#endif

// Tests are built with the same optimisation as the agent, so that both share their objects. They reach what
// is not public through the access level `package`; @testable is not available to them.
let package = Package(
  name: "BenchKit",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: [
    .library(name: "BenchKit", targets: ["BenchKit", "CoreMLRunner", "ExecuTorchRunner", "BenchApp"])
  ],
  dependencies: dependencies,
  targets: platformTargets + [
    .target(name: "BenchKit"),
    .target(name: "CoreMLRunner", dependencies: ["BenchKit"] + coreML),
    .target(name: "ExecuTorchRunner", dependencies: ["BenchKit"] + execuTorch),
    .target(name: "BenchApp", dependencies: ["BenchKit", "CoreMLRunner", "ExecuTorchRunner"]),
    .target(name: "Fixtures", dependencies: ["BenchKit"], path: "Tests/Fixtures"),
    .testTarget(name: "BenchKitTests", dependencies: ["BenchKit", "Fixtures"]),
    .testTarget(name: "CoreMLRunnerTests", dependencies: ["BenchKit", "CoreMLRunner", "Fixtures"]),
    .testTarget(name: "BenchAppTests", dependencies: ["BenchKit", "BenchApp", "Fixtures"]),
  ]
)
