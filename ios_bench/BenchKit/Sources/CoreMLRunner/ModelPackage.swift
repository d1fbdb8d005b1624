import BenchKit
import Foundation

/// A Core ML package as `bench` sends it: a zip of one `.mlpackage` folder and nothing else.
package struct ModelPackage {
  private static let manifest = "Manifest.json"

  private let zip: StoredZip
  private let name: String

  /// Reads the archive's directory. Throws OpError `bad_model` where it is not what a package must be.
  package init(zipAt url: URL) throws {
    do {
      // Mapped, not read: only the files' bytes are touched, when they are written out.
      zip = try StoredZip(Data(contentsOf: url, options: .alwaysMapped))
      name = try Self.packageName(zip.entries)
    } catch let refusal as StoredZip.Refusal {
      throw OpError(
        .badModel, "the model is not a zip of one .mlpackage: \(refusal.reason); export it again with bench")
    }
  }

  /// Writes the package below `folder`, which must exist and be empty; returns where it is.
  package func unpack(into folder: URL) throws -> URL {
    let files = FileManager.default
    for entry in zip.entries {
      let place = entry.path.reduce(folder) { $0.appendingPathComponent($1) }
      let parent = entry.isDirectory ? place : place.deletingLastPathComponent()
      try files.createDirectory(at: parent, withIntermediateDirectories: true)
      if !entry.isDirectory {
        try zip.contents(of: entry).write(to: place, options: .withoutOverwriting)
      }
    }
    return folder.appendingPathComponent(name)
  }

  private static func packageName(_ entries: [StoredZip.Entry]) throws -> String {
    let tops = Set(entries.map { $0.path[0] })
    guard let name = tops.first, tops.count == 1, name.hasSuffix(".mlpackage"), name.count > 10 else {
      let found = tops.sorted().prefix(3).joined(separator: ", ")
      throw StoredZip.Refusal(reason: "it holds \(found), where one .mlpackage and nothing beside it must be")
    }
    guard entries.contains(where: { $0.path == [name, manifest] && !$0.isDirectory }) else {
      throw StoredZip.Refusal(reason: "\(name) has no \(manifest)")
    }
    return name
  }
}
