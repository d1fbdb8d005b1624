import BenchKit
import CoreML
import Foundation

/// A model that Core ML has loaded.
///
/// Inputs and outputs are in the order of their names, numbers in them compared as numbers: `bench` names them
/// `input_0`, `input_1` and so on.
final class CoreMLModel: Model {
  let inputs: [TensorSpec]
  private(set) var outputs: [TensorSpec] = []

  private let inputFeatures: [(name: String, dataType: MLMultiArrayDataType)]
  private let outputNames: [String]
  private var loaded: MLModel?
  private var features: MLDictionaryFeatureProvider
  private let options = MLPredictionOptions()
  private var result: (any MLFeatureProvider)?
  private let onClose: () -> Void

  /// Runs the model once or twice, to learn what its outputs are and whether they can be written in place: the
  /// interface of a Core ML program may omit. Throws OpError `bad_model`.
  init(_ model: MLModel, onClose: @escaping () -> Void) throws {
    let description = model.modelDescription
    let named = try Self.inOrder(description.inputDescriptionsByName).map { name, feature in
      let constraint = feature.multiArrayConstraint
      guard feature.type == .multiArray, let constraint, let dtype = constraint.dataType.dtype else {
        throw OpError(
          .badModel, "the model's input \(name) is not a tensor of a known type; export it with tensors")
      }
      let spec = TensorSpec(dtype: dtype, shape: constraint.shape.map(\.intValue))
      return (name: name, dataType: constraint.dataType, spec: spec)
    }
    inputFeatures = named.map { ($0.name, $0.dataType) }
    inputs = named.map(\.spec)
    outputNames = Self.inOrder(description.outputDescriptionsByName).map(\.0)
    loaded = model
    self.onClose = onClose
    features = try Self.provider(inputFeatures, inputs.map(Tensor.zeros))
    try proposeOutputBuffers()
  }

  var inputBuffers: InputBuffers {
    let arrays = inputFeatures.map { features.featureValue(for: $0.name)?.multiArrayValue }
    return arrays.allSatisfy { $0?.pixelBuffer != nil } ? .ioSurface : .copied
  }

  func prepare(_ tensors: [Tensor]) throws {
    features = try Self.provider(inputFeatures, tensors)
  }

  /// Core ML does not write to its inputs, so that they stay set. The last result is let go here, where its
  /// memory is freed outside the timed call.
  func setInputs() {
    result = nil
  }

  func execute() throws {
    do {
      try predict()
    } catch {
      throw OpError(.runFailed, "Core ML failed (\(error.oneLine)); keep the app in the foreground")
    }
  }

  func readOutputs() throws -> [Tensor] {
    try zip(outputArrays(), outputs).map { array, spec in
      guard array.spec == spec else {
        throw OpError(.runFailed, "an output changed its shape; export the model with fixed shapes")
      }
      return array.tensor(as: spec)
    }
  }

  func close() {
    loaded = nil
    result = nil
    options.outputBackings = [:]
    onClose()
  }

  private func predict() throws {
    guard let loaded else { throw OpError(.internal, "the model was closed") }
    result = try loaded.prediction(from: features, options: options)
  }

  private func proposeOutputBuffers() throws {
    try predict()
    let arrays = try outputArrays()
    outputs = try zip(outputNames, arrays).map { name, array in
      guard let spec = array.spec else {
        throw OpError(.badModel, "the model's output \(name) has an unknown type; export it with tensors")
      }
      return spec
    }
    let buffers = try arrays.map { try MLMultiArray.allocate(shape: $0.shape, dataType: $0.dataType) }
    options.outputBackings = Dictionary(uniqueKeysWithValues: zip(outputNames, buffers))
    do {
      try predict()
    } catch {
      // Core ML then allocates the outputs of every execution itself.
      options.outputBackings = [:]
    }
    result = nil
  }

  private func outputArrays() throws -> [MLMultiArray] {
    try outputNames.map { name in
      guard let array = result?.featureValue(for: name)?.multiArrayValue else {
        throw OpError(.badModel, "the model's output \(name) is not a tensor; export it with tensors")
      }
      return array
    }
  }

  private static func inOrder(
    _ descriptions: [String: MLFeatureDescription]
  ) -> [(String, MLFeatureDescription)] {
    descriptions.sorted { $0.key.compare($1.key, options: .numeric) == .orderedAscending }
  }

  private static func provider(
    _ features: [(name: String, dataType: MLMultiArrayDataType)], _ tensors: [Tensor]
  ) throws -> MLDictionaryFeatureProvider {
    let arrays = try zip(features, tensors).map { try MLMultiArray.holding($1, as: $0.dataType) }
    return try MLDictionaryFeatureProvider(
      dictionary: Dictionary(uniqueKeysWithValues: zip(features.map(\.name), arrays)))
  }
}

extension Tensor {
  fileprivate static func zeros(_ spec: TensorSpec) -> Tensor {
    Tensor(spec: spec, bytes: [UInt8](repeating: 0, count: spec.bytes ?? 0))
  }
}
