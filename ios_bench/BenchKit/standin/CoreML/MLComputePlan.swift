import Foundation

public struct MLCPUComputeDevice: Hashable, Sendable {}

public struct MLGPUComputeDevice: Hashable, Sendable {}

public struct MLNeuralEngineComputeDevice: Hashable, Sendable {}

/// Where an operation can run (iOS 17).
public enum MLComputeDevice: Equatable, Hashable, Sendable {
  case cpu(MLCPUComputeDevice)
  case gpu(MLGPUComputeDevice)
  case neuralEngine(MLNeuralEngineComputeDevice)
}

/// Where Core ML intends to run each operation of a compiled model (iOS 17.4).
public class MLComputePlan {
  public struct DeviceUsage: Sendable {
    public let supported: [MLComputeDevice]
    public let preferred: MLComputeDevice
  }

  public struct Cost: Sendable {
    public let weight: Double
  }

  public final let modelStructure: MLModelStructure
  private let usages: [String: DeviceUsage]
  private let costs: [String: Cost]

  init(modelStructure: MLModelStructure, usages: [String: DeviceUsage], costs: [String: Cost]) {
    self.modelStructure = modelStructure
    self.usages = usages
    self.costs = costs
  }

  public static func load(
    contentsOf url: URL, configuration: MLModelConfiguration
  ) async throws -> MLComputePlan {
    try StandInModel(compiledAt: url).makePlan(configuration: configuration)
  }

  public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? {
    operation.outputs.first.flatMap { usages[$0.name] }
  }

  public func estimatedCost(of operation: MLModelStructure.Program.Operation) -> Cost? {
    operation.outputs.first.flatMap { costs[$0.name] }
  }
}
