import BenchKit
import CoreMLRunner
import Fixtures
import Foundation

/// A folder of its own, with packages in it and a runtime that has its caches there. Deleted with the last
/// reference.
final class Workplace {
  let folder: URL
  private var count = 0

  init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("coreml-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  var cache: URL { folder.appendingPathComponent("cache") }

  /// A stored package of which the stand-in for Core ML makes what `description` says.
  func model(_ description: String) throws -> StoredModel {
    try stored(
      ZipWriter.package([
        "Manifest.json": "{}", "Data/com.apple.CoreML/model.mlmodel": description,
        "Data/com.apple.CoreML/weights/weight.bin": "1234",
      ]).archive())
  }

  func stored(_ archive: Data) throws -> StoredModel {
    count += 1
    // Not the content's hash: the runtime takes it from the store, which has checked it.
    let sha256 = String(repeating: "0", count: 62) + String(format: "%02x", count)
    let url = folder.appendingPathComponent(sha256)
    try archive.write(to: url)
    return StoredModel(sha256: sha256, url: url, bytes: archive.count)
  }

  func runtime(
    system: String = "iOS 17.5 (21F79)", freeMemoryBytes: Int? = nil, freeDiskBytes: Int? = nil
  ) throws -> CoreMLRuntime {
    try CoreMLRuntime(
      cache: cache, system: system, freeMemoryBytes: { freeMemoryBytes }, freeDiskBytes: { freeDiskBytes })
  }
}

/// Stands for a session: loads and uses models on an actor of its own.
actor Client {
  private let runtime: CoreMLRuntime

  init(_ runtime: CoreMLRuntime) { self.runtime = runtime }

  /// Loads, hands the result to `body`, and closes.
  func load<Result: Sendable>(
    _ model: StoredModel, units: String? = nil, _ body: @Sendable (LoadedModel) throws -> Result
  ) async throws -> Result {
    let options: LoadOptions = units.map { ["compute_units": .string($0)] } ?? [:]
    let loaded = try await runtime.load(model, options: options, session: self)
    let result = Swift.Result { try body(loaded) }
    loaded.model.close()
    return try result.get()
  }

  /// Loads, reads the placement, and closes.
  func placement(_ model: StoredModel, units: String? = nil) async throws -> Placement? {
    let options: LoadOptions = units.map { ["compute_units": .string($0)] } ?? [:]
    let loaded = try await runtime.load(model, options: options, session: self)
    let placement = await loaded.readPlacement()
    loaded.model.close()
    return placement
  }

  /// The error that a load with these options ends with; nil where it succeeds.
  func refusal(_ model: StoredModel, options: LoadOptions = [:]) async -> OpError? {
    do {
      let loaded = try await runtime.load(model, options: options, session: self)
      loaded.model.close()
      return nil
    } catch {
      return error as? OpError
    }
  }
}

func floats(_ values: [Float]) -> [UInt8] {
  values.flatMap { withUnsafeBytes(of: $0.bitPattern.littleEndian, Array.init) }
}

let twoByTwo = """
  {"inputs": [{"name": "input_0", "shape": [2, 2], "dtype": "float32"}],
   "outputs": [{"name": "output_0", "shape": [3], "dtype": "float32"}]}
  """
