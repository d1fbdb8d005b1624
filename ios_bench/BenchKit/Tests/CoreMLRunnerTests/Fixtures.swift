import BenchKit
import CoreMLRunner
import Fixtures
import Foundation
import Testing

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

  /// A stored package of two by two inputs whose outputs are the sum, the sum plus 1 and plus 2: JSON for the stand-in, a
  /// real one for the real Core ML.
  func twoByTwo() throws -> StoredModel {
    if standsInForCoreML {
      return try model(
        """
        {"inputs": [{"name": "input_0", "shape": [2, 2], "dtype": "float32"}],
         "outputs": [{"name": "output_0", "shape": [3], "dtype": "float32"}]}
        """)
    }
    return try stored(try #require(Data(base64Encoded: realTwoByTwo.filter { !$0.isWhitespace })))
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

extension Trait where Self == ConditionTrait {
  /// Skips tests that need the stand-in for Core ML.
  static var needsStandIn: Self {
    .enabled(if: standsInForCoreML, "the real Core ML takes no models that are JSON")
  }
}

/// coremltools 9.0 for iOS 17, in fp32: `mb.add(x=mb.reduce_sum(x=input_0, axes=[0, 1]), y=[0, 1, 2])`, packed by
/// orchestrator/export/artifacts/artifact.py.
private let realTwoByTwo = """
  UEsDBBQAAAAAAAAAIQBTkv6wQwQAAEMEAAAxAAAAbmV0Lm1scGFja2FnZS9EYXRhL2NvbS5hcHBsZS5Db3JlTUwvbW9kZWwubWxt
  b2RlbAgIEtIBChUKB2lucHV0XzAaCioICgICAhCggARSFQoIb3V0cHV0XzAaCSoHCgEDEKCABKIGoAGiBisKJGNvbS5naXRodWIu
  YXBwbGUuY29yZW1sdG9vbHMudmVyc2lvbhIDOS4wogYyCiNjb20uZ2l0aHViLmFwcGxlLmNvcmVtbHRvb2xzLnNvdXJjZRILbWls
  aW50ZXJuYWyiBjoKLGNvbS5naXRodWIuYXBwbGUuY29yZW1sdG9vbHMuY29udmVyc2lvbl9kYXRlEgoyMDI2LTExLTIysh/oBggB
  EsMFCgRtYWluEroFCh0KB2lucHV0XzASEgoQCAsQAhoECgIIAhoECgIIAhIHQ29yZU1MNxqPBQoHQ29yZU1MNxKDBRIIb3V0cHV0
  XzAaeAoFY29uc3QaIwoTcmVkdWNlX3N1bV8wX2F4ZXNfMBIMCgoIFxABGgQKAggCKh8KA3ZhbBIYEgwKCggXEAEaBAoCCAIaCAoG
  EgQKAgABKikKBG5hbWUSIRIECgIIAhoZChciFQoTcmVkdWNlX3N1bV8wX2F4ZXNfMBpxCgVjb25zdBogChhyZWR1Y2Vfc3VtXzBf
  a2VlcF9kaW1zXzASBAoCCAEqFgoDdmFsEg8SBAoCCAEaBwoFGgMKAQAqLgoEbmFtZRImEgQKAggCGh4KHCIaChhyZWR1Y2Vfc3Vt
  XzBfa2VlcF9kaW1zXzAapAEKCnJlZHVjZV9zdW0SHwoEYXhlcxIXChUKE3JlZHVjZV9zdW1fMF9heGVzXzASKQoJa2VlcF9kaW1z
  EhwKGgoYcmVkdWNlX3N1bV8wX2tlZXBfZGltc18wEhAKAXgSCwoJCgdpbnB1dF8wGhQKDHJlZHVjZV9zdW1fMBIECgIICyoiCgRu
  YW1lEhoSBAoCCAIaEgoQIg4KDHJlZHVjZV9zdW1fMBp0CgVjb25zdBocCgxvdXRwdXRfMF95XzASDAoKCAsQARoECgIIAyopCgN2
  YWwSIhIMCgoICxABGgQKAggDGhIKEAoOCgwAAAAAAACAPwAAAEAqIgoEbmFtZRIaEgQKAggCGhIKECIOCgxvdXRwdXRfMF95XzAa
  bQoDYWRkEhUKAXgSEAoOCgxyZWR1Y2Vfc3VtXzASFQoBeRIQCg4KDG91dHB1dF8wX3lfMBoYCghvdXRwdXRfMBIMCgoICxABGgQK
  AggDKh4KBG5hbWUSFhIECgIIAhoOCgwiCgoIb3V0cHV0XzAinQEKCWJ1aWxkSW5mbxKPARIOIgwKBAoCCAISBAoCCAIafSJ7CjYK
  IRIECgIIAhoZChciFQoTY29yZW1sdG9vbHMtdmVyc2lvbhIREgQKAggCGgkKByIFCgM5LjAKQQovEgQKAggCGicKJSIjCiFjb3Jl
  bWx0b29scy1jb21wb25lbnQtbWlsaW50ZXJuYWwSDhIECgIIAhoGCgQiAgoAUEsDBBQAAAAAAAAAIQBudiRqaQIAAGkCAAAbAAAA
  bmV0Lm1scGFja2FnZS9NYW5pZmVzdC5qc29uewogICAgImZpbGVGb3JtYXRWZXJzaW9uIjogIjEuMC4wIiwKICAgICJpdGVtSW5m
  b0VudHJpZXMiOiB7CiAgICAgICAgIjRkYTkyYmM4LTNhYTAtNDM5Mi04OTEwLTc5NTEyMTA3NTJkOCI6IHsKICAgICAgICAgICAg
  ImF1dGhvciI6ICJjb20uYXBwbGUuQ29yZU1MIiwKICAgICAgICAgICAgImRlc2NyaXB0aW9uIjogIkNvcmVNTCBNb2RlbCBTcGVj
  aWZpY2F0aW9uIiwKICAgICAgICAgICAgIm5hbWUiOiAibW9kZWwubWxtb2RlbCIsCiAgICAgICAgICAgICJwYXRoIjogImNvbS5h
  cHBsZS5Db3JlTUwvbW9kZWwubWxtb2RlbCIKICAgICAgICB9LAogICAgICAgICI2NDUwNThjNy00YTZiLTRhMzAtOWQ2MS1lY2E2
  YTMyYmIzMGUiOiB7CiAgICAgICAgICAgICJhdXRob3IiOiAiY29tLmFwcGxlLkNvcmVNTCIsCiAgICAgICAgICAgICJkZXNjcmlw
  dGlvbiI6ICJDb3JlTUwgTW9kZWwgV2VpZ2h0cyIsCiAgICAgICAgICAgICJuYW1lIjogIndlaWdodHMiLAogICAgICAgICAgICAi
  cGF0aCI6ICJjb20uYXBwbGUuQ29yZU1ML3dlaWdodHMiCiAgICAgICAgfQogICAgfSwKICAgICJyb290TW9kZWxJZGVudGlmaWVy
  IjogIjRkYTkyYmM4LTNhYTAtNDM5Mi04OTEwLTc5NTEyMTA3NTJkOCIKfQpQSwECFAMUAAAAAAAAACEAU5L+sEMEAABDBAAAMQAA
  AAAAAAAAAAAApIEAAAAAbmV0Lm1scGFja2FnZS9EYXRhL2NvbS5hcHBsZS5Db3JlTUwvbW9kZWwubWxtb2RlbFBLAQIUAxQAAAAA
  AAAAIQBudiRqaQIAAGkCAAAbAAAAAAAAAAAAAACkgZIEAABuZXQubWxwYWNrYWdlL01hbmlmZXN0Lmpzb25QSwUGAAAAAAIAAgCo
  AAAANAcAAAAA
  """
