import BenchKit
import Foundation

/// Cache of models compiled by Core ML on this device, by the SHA-256 of their package and the OS build.
///
/// On disk: `<root>/<system>/<sha256>/model.mlmodelc`, and next to it an empty file `loaded-<units>` once the
/// model was loaded with these units, since Core ML keeps what it specialised for a unit and later loads are
/// faster. A folder appears whole or not at all. What another OS build compiled is removed.
package final class CompiledModels: @unchecked Sendable {
  private static let model = "model.mlmodelc"
  private static let scratchPrefix = "scratch-"

  private let folder: URL
  private let limitBytes: Int
  private let files = FileManager.default
  private let lock = NSLock()
  /// Number of loads by SHA-256; guarded by `lock`.
  private var inUse: [String: Int] = [:]

  /// `root` is best in the app's caches: the system may empty it while the app does not run.
  package init(root: URL, system: String, limitBytes: Int) throws {
    let name = String(system.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "-" })
    folder = root.appendingPathComponent(name)
    self.limitBytes = limitBytes
    try files.createDirectory(at: folder, withIntermediateDirectories: true)
    let others = try files.contentsOfDirectory(atPath: root.path).filter { $0 != name }
    for other in others { try files.removeItem(at: root.appendingPathComponent(other)) }
    let left = try files.contentsOfDirectory(atPath: folder.path).filter { $0.hasPrefix(Self.scratchPrefix) }
    for scratch in left { try files.removeItem(at: folder.appendingPathComponent(scratch)) }
  }

  /// The cached compiled model.
  package func find(_ sha256: String) -> URL? {
    let model = place(of: sha256).appendingPathComponent(Self.model)
    return files.fileExists(atPath: model.path) ? model : nil
  }

  /// An empty folder on the same volume, deleted at the next start if the caller dies with it.
  package func makeScratch() throws -> URL {
    let scratch = folder.appendingPathComponent(Self.scratchPrefix + UUID().uuidString)
    try files.createDirectory(at: scratch, withIntermediateDirectories: true)
    return scratch
  }

  /// Moves a compiled model here, replacing an older one, and evicts the longest unused that no one uses.
  package func adopt(_ compiled: URL, as sha256: String) throws -> URL {
    try makeRoom(bytes: size(of: compiled), except: sha256)
    let scratch = try makeScratch()
    try files.moveItem(at: compiled, to: scratch.appendingPathComponent(Self.model))
    drop(sha256)
    try files.moveItem(at: scratch, to: place(of: sha256))
    return place(of: sha256).appendingPathComponent(Self.model)
  }

  /// Forgets the model; false where it is loaded.
  package func dropUnlessUsed(_ sha256: String) -> Bool {
    guard !lock.withLock({ inUse.keys.contains(sha256) }) else { return false }
    drop(sha256)
    return true
  }

  /// Whether this device has loaded the model with these units since it was compiled.
  func wasLoaded(_ sha256: String, with units: ComputeUnits) -> Bool {
    files.fileExists(atPath: marker(sha256, units).path)
  }

  /// Records a successful load.
  func markLoaded(_ sha256: String, with units: ComputeUnits) throws {
    try Data().write(to: marker(sha256, units))
    try files.setAttributes([.modificationDate: Date()], ofItemAtPath: place(of: sha256).path)
  }

  /// Keeps the model from eviction until `release`.
  package func retain(_ sha256: String) {
    lock.withLock { inUse[sha256, default: 0] += 1 }
  }

  package func release(_ sha256: String) {
    lock.withLock {
      let uses = inUse[sha256, default: 0] - 1
      inUse[sha256] = uses > 0 ? uses : nil
    }
  }

  private func place(of sha256: String) -> URL { folder.appendingPathComponent(sha256) }

  private func marker(_ sha256: String, _ units: ComputeUnits) -> URL {
    place(of: sha256).appendingPathComponent("loaded-\(units.rawValue)")
  }

  private func drop(_ sha256: String) {
    try? files.removeItem(at: place(of: sha256))
  }

  private func makeRoom(bytes: Int, except sha256: String) throws {
    let used = lock.withLock { Set(inUse.keys) }
    var kept = try files.contentsOfDirectory(atPath: folder.path)
      .filter { $0 != sha256 && !$0.hasPrefix(Self.scratchPrefix) }
      .map { (sha256: $0, bytes: size(of: place(of: $0)), usedAt: lastUse(of: $0)) }
      .sorted { $0.usedAt > $1.usedAt }
    var total = kept.reduce(bytes) { $0 + $1.bytes }
    while total > limitBytes, let last = kept.popLast() {
      guard !used.contains(last.sha256) else { continue }
      drop(last.sha256)
      total -= last.bytes
    }
  }

  private func lastUse(of sha256: String) -> Date {
    let attributes = try? files.attributesOfItem(atPath: place(of: sha256).path)
    return attributes?[.modificationDate] as? Date ?? .distantPast
  }

  /// Bytes of the files below `url`.
  private func size(of url: URL) -> Int {
    guard let below = files.enumerator(atPath: url.path) else { return 0 }
    return below.reduce(0) { total, _ in
      let attributes = below.fileAttributes ?? [:]
      guard attributes[.type] as? FileAttributeType == .typeRegular else { return total }
      return total + (attributes[.size] as? Int ?? 0)
    }
  }
}
