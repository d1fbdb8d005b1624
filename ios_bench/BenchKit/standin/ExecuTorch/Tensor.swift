import CETShim

/// Element types, by their numbers in ExecuTorch's scalar_type.h.
public enum DataType: Int8, Sendable {
  case byte = 0
  case char = 1
  case short = 2
  case int = 3
  case long = 4
  case half = 5
  case float = 6
  case double = 7
  case bool = 11

  /// Size of one element.
  var bytes: Int {
    switch self {
    case .byte, .char, .bool: 1
    case .short, .half: 2
    case .int, .float: 4
    case .long, .double: 8
    }
  }

  init?(name: String) {
    switch name {
    case "uint8": self = .byte
    case "int8": self = .char
    case "int16": self = .short
    case "int32": self = .int
    case "int64": self = .long
    case "float16": self = .half
    case "float32": self = .float
    case "float64": self = .double
    case "bool": self = .bool
    default: return nil
    }
  }
}

/// A tensor of any element type, which owns its data.
public final class AnyTensor {
  public let dataType: DataType
  public let shape: [Int]
  public var count: Int { shape.reduce(1, *) }

  let data: UnsafeMutableRawBufferPointer

  /// Copies the data from `pointer`.
  public convenience init(bytes pointer: UnsafeRawPointer, shape: [Int], dataType: DataType) {
    self.init(shape: shape, dataType: dataType)
    data.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: data.count))
  }

  /// A tensor that is yet to be filled.
  init(shape: [Int], dataType: DataType) {
    self.shape = shape
    self.dataType = dataType
    data = .allocate(byteCount: shape.reduce(dataType.bytes, *), alignment: 64)
  }

  deinit { data.deallocate() }

  /// Gives the data, the number of elements and their type to `handler`.
  public func bytes(_ handler: (UnsafeRawPointer, Int, DataType) -> Void) {
    handler(UnsafeRawPointer(data.baseAddress!), count, dataType)
  }
}

/// What a method takes or gives; of the many kinds in Apple's module, this one only knows tensors.
public final class Value {
  private let tensor: () -> AnyTensor?

  public init(_ tensor: AnyTensor) {
    self.tensor = { tensor }
  }

  /// A value that is read on access.
  init(reading tensor: @escaping () -> AnyTensor?) {
    self.tensor = tensor
  }

  public var anyTensor: AnyTensor? { tensor() }
}

public protocol ValueConvertible {
  func asValue() -> Value
}

extension Value: ValueConvertible {
  public func asValue() -> Value { self }
}

extension AnyTensor: ValueConvertible {
  public func asValue() -> Value { Value(self) }
}
