// swift-tools-version: 6.0
import PackageDescription

// Linux has no Core ML: there a target of that name stands in for the part that CoreMLRunner uses.
#if os(Linux)
  let coreML: [Target] = [.target(name: "CoreML")]
  let coreMLDependencies: [Target.Dependency] = ["CoreML"]
#else
  let coreML: [Target] = []
  let coreMLDependencies: [Target.Dependency] = []
#endif

// Tests are built with the same optimisation as the agent, so that both share their objects. They reach what
// is not public through the access level `package`; @testable is not available to them.
let package = Package(
  name: "BenchKit",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: [
    .library(name: "BenchKit", targets: ["BenchKit"])
  ],
  targets: coreML + [
    .target(name: "BenchKit"),
    .target(name: "CoreMLRunner", dependencies: ["BenchKit"] + coreMLDependencies),
    .testTarget(name: "BenchKitTests", dependencies: ["BenchKit"]),
    .testTarget(name: "CoreMLRunnerTests", dependencies: ["BenchKit", "CoreMLRunner"]),
  ]
)
