import CETShim

/// What a method declares of one of its tensors.
public final class TensorMetadata {
  public let shape: [Int]
  public let dataType: DataType

  init(_ spec: et_tensor_spec) throws {
    guard let dataType = DataType(name: String(cString: spec.dtype)) else {
      throw failure(.notSupported, "a tensor of type \(String(cString: spec.dtype))")
    }
    self.dataType = dataType
    shape = withUnsafeBytes(of: spec.shape) {
      $0.bindMemory(to: Int64.self).prefix(Int(spec.rank)).map(Int.init)
    }
  }
}

/// What a method declares of itself.
public final class MethodMetadata {
  public let inputTensorMetadata: [Int: TensorMetadata]
  public let outputTensorMetadata: [Int: TensorMetadata]
  public let memoryPlannedBufferSizes: [Int]

  init(_ model: OpaquePointer) throws {
    inputTensorMetadata = try Self.tensors(et_num_inputs(model)) { et_input_spec(model, $0, $1) }
    outputTensorMetadata = try Self.tensors(et_num_outputs(model)) { et_output_spec(model, $0, $1) }
    memoryPlannedBufferSizes = [Int(clamping: et_planned_bytes(model))]
  }

  private static func tensors(
    _ count: Int, _ describe: (Int, UnsafeMutablePointer<et_tensor_spec>) -> Int32
  ) throws -> [Int: TensorMetadata] {
    var tensors: [Int: TensorMetadata] = [:]
    for index in 0..<count {
      var spec = et_tensor_spec()
      try check(describe(index, &spec))
      tensors[index] = try TensorMetadata(spec)
    }
    return tensors
  }
}
