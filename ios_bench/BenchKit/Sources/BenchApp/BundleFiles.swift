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

  /// Runs a bundle; its journal lies beside it.
  @discardableResult
  public static func run(_ bundle: URL, _ model: AgentModel) async -> Bool {
    await model.runBundle(bundle, journal: URL(fileURLWithPath: BundleRun.journal(beside: bundle.path)))
  }

  private static func documents() throws -> URL {
    try FileManager.default.url(
      for: .documentDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
  }
}
