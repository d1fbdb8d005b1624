import BenchKit
import CoreML
import Foundation

/// Reads where Core ML intends to run each operation of a compiled model.
enum ComputePlan {
  private static let maxTextCharacters = 256

  /// Operations in program order, nested ones after the one that holds them. Constants are left out, and so are
  /// operations whose unit Core ML does not report. Nil where Core ML has no plan: before iOS 17.4, and for
  /// models that are not programs.
  static func placement(of compiled: URL, on units: ComputeUnits) async -> Placement? {
    guard #available(iOS 17.4, macOS 14.4, *) else { return nil }
    let configuration = units.makeConfiguration()
    guard let plan = try? await MLComputePlan.load(contentsOf: compiled, configuration: configuration),
      case .program(let program) = plan.modelStructure, let main = program.functions["main"]
    else { return nil }
    return Placement(operations: operations(of: main.block, in: plan))
  }

  @available(iOS 17.4, macOS 14.4, *)
  private static func operations(
    of block: MLModelStructure.Program.Block, in plan: MLComputePlan
  ) -> [Placement.Operation] {
    block.operations.flatMap { operation in
      let nested = operation.blocks.flatMap { operations(of: $0, in: plan) }
      guard operation.operatorName != "const",
        let unit = plan.deviceUsage(for: operation).flatMap({ Placement.Unit($0.preferred) })
      else { return nested }
      let weight = plan.estimatedCost(of: operation)?.weight
      let placed = Placement.Operation(
        name: String((operation.outputs.first?.name ?? "").prefix(maxTextCharacters)),
        type: String(operation.operatorName.prefix(maxTextCharacters)), unit: unit,
        cost: weight.flatMap { 0...1 ~= $0 ? $0 : nil })
      return [placed] + nested
    }
  }
}

@available(iOS 17, macOS 14, *)
extension Placement.Unit {
  /// Nil for a kind of device that this agent does not know.
  init?(_ device: MLComputeDevice) {
    switch device {
    case .cpu: self = .cpu
    case .gpu: self = .gpu
    case .neuralEngine: self = .neuralEngine
    @unknown default: return nil
    }
  }
}
