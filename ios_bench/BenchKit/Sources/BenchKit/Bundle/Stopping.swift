import Foundation

/// Natural logarithms of ratios to the reference, of each slot in each round of a batch.
struct BatchRatios {
  /// One in four rounds is cut from each end.
  private static let cut = 4

  private var logs: [Int: [Double]] = [:]
  private(set) var rounds = 0

  /// Takes in a run: slots visited, and nanoseconds as u64; of a slot's visits in a round the last counts.
  mutating func add(_ order: [[Int]], _ samples: [UInt8]) {
    var left = samples[...]
    for visited in order {
      var last: [Int: Double] = [:]
      for slot in visited {
        let ns = left.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        left = left.dropFirst(8)
        last[slot] = log(Double(max(1, ns)))
      }
      let reference = ((last[0] ?? 0) + (last[1] ?? 0)) / 2
      for (slot, log) in last where slot > 1 { logs[slot, default: []].append(log - reference) }
      rounds += 1
    }
  }

  /// Midmean of each slot's rounds.
  var locations: [Int: Double] {
    logs.mapValues { values in
      let cut = values.count / Self.cut
      return mean(values.sorted()[cut..<values.count - cut])
    }
  }

  /// Standard error of the midmean of the slot that has most.
  var noise: Double { logs.values.map(Self.error).max() ?? 0 }

  /// Whether the batch can end before all its runs.
  func areEnough(_ stop: Script.Stop?) -> Bool {
    guard let stop else { return false }
    return rounds >= stop.minRounds && noise <= stop.loadError
  }

  /// By the winsorized variance (Tukey and McLaughlin 1963); infinite for one round.
  private static func error(_ values: [Double]) -> Double {
    guard values.count > 1 else { return .infinity }
    let cut = values.count / cut
    let sorted = values.sorted()
    let (low, high) = (sorted[cut], sorted[values.count - 1 - cut])
    let variance = squares(values.map { min(max($0, low), high) }) / Double(values.count - 1)
    return (variance / Double(values.count)).squareRoot() / (1 - 2 * Double(cut) / Double(values.count))
  }
}

extension Script.Stop {
  /// Standard errors of a mean over loads in half an interval.
  private static let errors = 2.0

  /// Why a bundle ends after `passes`; nil where the next one is to be made.
  ///
  /// - Parameters:
  ///   - loads: midmeans of models' loads.
  ///   - models: those that are to be narrow.
  ///   - worked: seconds of all batches.
  func ending(
    after passes: Int, loads: [String: [Double]], models: Set<String>, worked: Double
  ) -> String? {
    guard passes >= minPasses else { return nil }
    if Self.halfWidth(of: models.map { loads[$0] ?? [] }) <= halfWidth { return "narrow" }
    return worked > budget ? "budget" : nil
  }

  /// Half the widest 95 % interval of a model's mean over its loads; infinite where one has fewer than two.
  static func halfWidth(of groups: [[Double]]) -> Double {
    guard let fewest = groups.map(\.count).min() else { return 0 }
    guard fewest > 1 else { return .infinity }
    let degrees = groups.reduce(0) { $0 + $1.count - 1 }
    let variance = groups.reduce(0) { $0 + squares($1) } / Double(degrees)
    return errors * (variance / Double(fewest)).squareRoot()
  }
}

private func mean(_ values: some Collection<Double>) -> Double { values.reduce(0, +) / Double(values.count) }

private func squares(_ values: [Double]) -> Double {
  let middle = mean(values)
  return values.reduce(0) { $0 + ($1 - middle) * ($1 - middle) }
}
