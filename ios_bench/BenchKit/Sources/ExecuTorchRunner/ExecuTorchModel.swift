import BenchKit
import ExecuTorch
import Foundation

/// A loaded method `forward`.
final class ExecuTorchModel: Model {
  static let method = "forward"

  let inputs: [TensorSpec]
  let outputs: [TensorSpec]

  private var module: Module?
  private var prepared: [AnyTensor] = []
  private var results: [Value] = []

  /// Throws OpError `bad_model` for a tensor that the protocol does not carry.
  init(_ module: Module, _ metadata: MethodMetadata) throws {
    self.module = module
    inputs = try specs(metadata.inputTensorMetadata)
    outputs = try specs(metadata.outputTensorMetadata)
  }

  func prepare(_ tensors: [BenchKit.Tensor]) throws {
    prepared = tensors.map { tensor in
      tensor.bytes.withUnsafeBytes { bytes in
        // An empty tensor has no address, but the runtime wants one.
        let address = bytes.baseAddress ?? UnsafeRawPointer(bitPattern: 64)!
        return AnyTensor(bytes: address, shape: tensor.spec.shape, dataType: DataType(tensor.spec.dtype))
      }
    }
  }

  /// Also lets go of the last outputs, so that the timed call does not have to.
  func setInputs() throws {
    results = []
    try loaded().setInputs(prepared)
  }

  func execute() throws {
    results = try loaded().execute(Self.method)
  }

  func readOutputs() throws -> [BenchKit.Tensor] {
    try zip(outputs, results).map { spec, value in
      guard let tensor = value.anyTensor, tensor.shape == spec.shape else {
        throw OpError(.runFailed, "an output is not the tensor that the model declares")
      }
      var bytes: [UInt8] = []
      tensor.bytes { pointer, count, _ in
        bytes = Array(UnsafeRawBufferPointer(start: pointer, count: count * spec.dtype.bytes))
      }
      return BenchKit.Tensor(spec: spec, bytes: bytes)
    }
  }

  func close() {
    results = []
    prepared = []
    module = nil
  }

  private func loaded() throws -> Module {
    guard let module else { throw OpError(.internal, "the model is closed") }
    return module
  }
}

private func specs(_ metadata: [Int: TensorMetadata]) throws -> [TensorSpec] {
  try metadata.sorted { $0.key < $1.key }.map { _, tensor in
    guard let dtype = DType(tensor.dataType) else {
      throw OpError(.badModel, "the model has a tensor of type \(tensor.dataType); export it with another")
    }
    return TensorSpec(dtype: dtype, shape: tensor.shape)
  }
}

extension DataType {
  fileprivate init(_ dtype: DType) {
    switch dtype {
    case .uint8: self = .byte
    case .int8: self = .char
    case .int16: self = .short
    case .int32: self = .int
    case .int64: self = .long
    case .float16: self = .half
    case .float32: self = .float
    case .float64: self = .double
    case .bool: self = .bool
    }
  }
}

extension DType {
  fileprivate init?(_ dataType: DataType) {
    guard let match = DType.allCases.first(where: { DataType($0) == dataType }) else { return nil }
    self = match
  }
}
