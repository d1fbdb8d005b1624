import BenchKit
import CoreML

/// The load option `compute_units`: what Core ML may run a model on.
enum ComputeUnits: String, CaseIterable {
  static let option = "compute_units"

  case cpuOnly = "cpuonly"
  case cpuAndGPU = "cpuandgpu"
  case cpuAndNeuralEngine = "cpuandneuralengine"
  case all

  /// Throws OpError `bad_option`.
  init(_ options: LoadOptions) throws {
    if let unknown = options.keys.filter({ $0 != Self.option }).min() {
      throw OpError(.badOption, "coreml has no option \"\(unknown)\"; it has: \(Self.option)")
    }
    guard let value = options[Self.option] else {
      self = .all
      return
    }
    guard case .string(let name) = value, let units = Self(rawValue: name) else {
      throw OpError(
        .badOption, "\(Self.option) must be one of \(Self.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    self = units
  }

  /// A configuration of its own for every use: Core ML's is mutable and bound to no thread.
  func makeConfiguration() -> MLModelConfiguration {
    let configuration = MLModelConfiguration()
    configuration.computeUnits =
      switch self {
      case .cpuOnly: .cpuOnly
      case .cpuAndGPU: .cpuAndGPU
      case .cpuAndNeuralEngine: .cpuAndNeuralEngine
      case .all: .all
      }
    return configuration
  }
}
