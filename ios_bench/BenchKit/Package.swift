// swift-tools-version: 6.0
import PackageDescription

// Tests are built with the same optimisation as the agent, so that both share their objects. They reach what
// is not public through the access level `package`; @testable is not available to them.
let package = Package(
  name: "BenchKit",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: [
    .library(name: "BenchKit", targets: ["BenchKit"])
  ],
  targets: [
    .target(name: "BenchKit"),
    .testTarget(name: "BenchKitTests", dependencies: ["BenchKit"]),
  ]
)
