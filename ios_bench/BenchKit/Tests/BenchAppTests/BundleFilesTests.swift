import BenchApp
import Foundation
import Testing

@Suite("Bundles that a device farm gives with the app")
@MainActor
struct BundleFilesTests {
  private let documents: URL
  private let resources: URL

  init() throws {
    let root = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    documents = root.appendingPathComponent("Documents")
    resources = root.appendingPathComponent("Resources")
    for folder in [documents, resources, resources.appendingPathComponent("Package.bundle")] {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }
  }

  @Test("The only one is taken, and a package's resources are none")
  func onlyOne() throws {
    #expect(throws: NoBundle.self) { try given() }
    try put("xxs.bundle", into: documents)
    try put("xxs.bundle.journal.jsonl", into: documents)
    #expect(try given() == documents.appendingPathComponent("xxs.bundle"))
    try put("nano.bundle", into: documents)
    #expect(throws: NoBundle.self) { try given() }
    #expect(try given("nano.bundle").lastPathComponent == "nano.bundle")
  }

  @Test("One among the test's resources is copied to where its journal can lie, and found there again")
  func fromResources() throws {
    try put("xxs.bundle", into: resources)
    let kept = documents.appendingPathComponent("xxs.bundle")
    for _ in 0..<2 { #expect(try given() == kept) }
    #expect(try Data(contentsOf: kept) == Data("xxs.bundle".utf8))
    #expect(throws: NoBundle.self) { try given("other.bundle") }
  }

  private func given(_ name: String? = nil) throws -> URL {
    try BundleFiles.given(name, documents: documents, resources: resources)
  }

  private func put(_ name: String, into folder: URL) throws {
    try Data(name.utf8).write(to: folder.appendingPathComponent(name))
  }
}
