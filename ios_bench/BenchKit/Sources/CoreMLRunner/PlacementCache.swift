import BenchKit
import Foundation

/// Placements by model and compute units. A plan takes Core ML about as long as a load and is the same for every
/// load, of which measuring needs many.
final class PlacementCache: @unchecked Sendable {
  private struct Key: Hashable {
    let sha256: String
    let units: ComputeUnits
  }

  private let lock = NSLock()
  /// Guarded by `lock`; nil as a value: Core ML has no plan.
  private var known: [Key: Placement?] = [:]

  func placement(
    of sha256: String, on units: ComputeUnits, read: () async -> Placement?
  ) async -> Placement? {
    let key = Key(sha256: sha256, units: units)
    if let placement = lock.withLock({ known[key] }) { return placement }
    let placement = await read()
    lock.withLock { _ = known.updateValue(placement, forKey: key) }
    return placement
  }
}
