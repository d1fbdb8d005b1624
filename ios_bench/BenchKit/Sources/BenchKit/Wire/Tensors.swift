/// Element type of a tensor; the raw value is its name on the wire.
public enum DType: String, Sendable, CaseIterable {
  case float32, float16, float64, int64, int32, int16, int8, uint8, bool

  /// Size of one element.
  public var bytes: Int {
    switch self {
    case .float64, .int64: 8
    case .float32, .int32: 4
    case .float16, .int16: 2
    case .int8, .uint8, .bool: 1
    }
  }
}

/// Element type and shape of one input or output.
public struct TensorSpec: Sendable, Equatable {
  public let dtype: DType
  public let shape: [Int]

  public init(dtype: DType, shape: [Int]) {
    self.dtype = dtype
    self.shape = shape
  }

  /// Number of elements; nil where it does not fit into an integer.
  public var elements: Int? {
    shape.contains(0) ? 0 : product(shape)
  }

  /// Size in bytes; nil where it does not fit into an integer.
  public var bytes: Int? {
    elements.flatMap { product([$0, dtype.bytes]) }
  }

  package var json: JSON {
    .object(["dtype": .string(dtype.rawValue), "shape": .array(shape.map(JSON.integer))])
  }
}

/// A tensor's values: row-major, little-endian, nothing between them.
public struct Tensor: Sendable, Equatable {
  public let spec: TensorSpec
  public let bytes: [UInt8]

  /// `bytes` must be as many as `spec` needs.
  public init(spec: TensorSpec, bytes: [UInt8]) {
    precondition(spec.bytes == bytes.count, "a tensor's bytes are those of its shape")
    self.spec = spec
    self.bytes = bytes
  }
}

extension TensorSpec: CustomStringConvertible {
  public var description: String { "\(dtype.rawValue)\(shape)" }
}

private func product(_ factors: [Int]) -> Int? {
  var result = 1
  for factor in factors {
    let (value, overflow) = result.multipliedReportingOverflow(by: factor)
    if overflow { return nil }
    result = value
  }
  return result
}
