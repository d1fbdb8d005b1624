import BenchKit
import CoreMLRunner
import Foundation
import Testing

@Suite("Compiled models on disk")
struct CompiledModelsTests {
  private let place: Workplace
  private let models: CompiledModels

  init() throws {
    place = try Workplace()
    models = try CompiledModels(root: place.cache, system: "iOS 17", limitBytes: 250)
  }

  @Test("A model stays until the bound is passed; then those unused for longest go first")
  func eviction() throws {
    for (age, name) in ["a", "b"].enumerated() {
      try adopt(name)
      try setLastUse(of: name, Date(timeIntervalSince1970: Double(age)))
    }
    try adopt("c")
    #expect(kept == ["b", "c"])
  }

  @Test("A model that is loaded is never evicted")
  func inUse() throws {
    try adopt("a")
    try adopt("b")
    models.retain("a")
    models.retain("a")
    models.release("a")
    try setLastUse(of: "a", .distantPast)
    try adopt("c")
    #expect(kept == ["a", "c"])
    #expect(!models.dropUnlessUsed("a"))
    models.release("a")
    #expect(models.dropUnlessUsed("a"))
    #expect(kept == ["c"])
  }

  @Test("A model larger than the bound is kept all the same, alone: it is about to be loaded")
  func oversized() throws {
    try adopt("a")
    try adopt("huge", bytes: 1000)
    #expect(kept == ["huge"])
  }

  private var kept: [String] { ["a", "b", "c", "huge"].filter { models.find($0) != nil } }

  private func adopt(_ name: String, bytes: Int = 100) throws {
    let compiled = place.folder.appendingPathComponent("compiled.mlmodelc")
    try FileManager.default.createDirectory(at: compiled, withIntermediateDirectories: true)
    try Data(count: bytes).write(to: compiled.appendingPathComponent("weights"))
    let adopted = try models.adopt(compiled, as: name)
    #expect(adopted == models.find(name))
    #expect(!FileManager.default.fileExists(atPath: compiled.path))
  }

  private func setLastUse(of name: String, _ date: Date) throws {
    let folder = try #require(models.find(name)).deletingLastPathComponent()
    try FileManager.default.setAttributes([.modificationDate: date], ofItemAtPath: folder.path)
  }
}
