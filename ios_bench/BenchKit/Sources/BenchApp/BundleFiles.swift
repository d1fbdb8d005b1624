import BenchKit
import Foundation

/// Bundles and journals in the app's documents, which Files shows and a device farm pulls.
@MainActor
public enum BundleFiles {
  /// Runs what the app was launched for, if anything; false where it did not get to its end.
  @discardableResult
  public static func runLaunched(_ bundle: String?, _ model: AgentModel) async -> Bool {
    guard let bundle, let file = try? documents().appendingPathComponent(bundle) else { return true }
    return await run(file, model)
  }

  /// Runs a bundle that a person picked. It is copied first: the app may read it only now, and a run may go on later.
  public static func runPicked(_ file: URL, _ model: AgentModel) async {
    guard let documents = try? documents() else { return }
    let kept = documents.appendingPathComponent(file.lastPathComponent)
    if kept != file {
      try? FileManager.default.removeItem(at: kept)
      try? FileManager.default.copyItem(at: file, to: kept)
    }
    await run(kept, model)
  }

  /// Runs a bundle; its journal is written next to it.
  @discardableResult
  public static func run(_ bundle: URL, _ model: AgentModel) async -> Bool {
    await model.runBundle(bundle, journal: journal(of: bundle))
  }

  /// Path of a bundle's journal.
  public static func journal(of bundle: URL) -> URL {
    URL(fileURLWithPath: BundleRun.journal(beside: bundle.path))
  }

  /// The bundle that a device farm gave with the app: `name`, or the only one, in the documents or among `resources`,
  /// from which it is copied. Throws NoBundle.
  public static func given(_ name: String?, resources: URL?) throws -> URL {
    try given(name, documents: documents(), resources: resources)
  }

  /// As the above, with the app's documents.
  public static func given(_ name: String?, documents: URL, resources: URL?) throws -> URL {
    for folder in [documents, resources].compactMap({ $0 }) {
      let found = files(in: folder).filter { name.map($0.lastPathComponent.elementsEqual) ?? isBundle($0) }
      guard let file = found.first else { continue }
      if found.count > 1 { throw NoBundle("several bundles: name one of them") }
      let kept = documents.appendingPathComponent(file.lastPathComponent)
      if folder != documents { try FileManager.default.copyItem(at: file, to: kept) }
      return kept
    }
    throw NoBundle("no bundle \(name ?? ""): put it into the app's documents, or into the test's folder")
  }

  private static func isBundle(_ file: URL) -> Bool { file.pathExtension == "bundle" }

  /// Packages have resources in folders that are called `.bundle` too.
  private static func files(in folder: URL) -> [URL] {
    let all = try? FileManager.default.contentsOfDirectory(
      at: folder, includingPropertiesForKeys: [.isRegularFileKey])
    return (all ?? []).filter {
      (try? $0.resourceValues(forKeys: [.isRegularFileKey]).isRegularFile) ?? false
    }
  }

  private static func documents() throws -> URL {
    try FileManager.default.url(
      for: .documentDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
  }
}

/// No bundle came with the app.
public struct NoBundle: LocalizedError {
  public let errorDescription: String?

  init(_ message: String) { errorDescription = message }
}
