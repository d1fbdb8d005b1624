import BenchKit
import CoreML
import CoreVideo
import Foundation

extension MLMultiArrayDataType {
  /// The protocol's name of the type; nil where it has none.
  var dtype: DType? {
    switch self {
    case .double: .float64
    case .float32: .float32
    case .float16: .float16
    case .int32: .int32
    default: nil
    }
  }
}

extension MLMultiArray {
  /// An array to compute with: on a surface, which compute units read without a copy, where Core ML can lay it there.
  /// It can with Float16 alone.
  static func allocate(shape: [NSNumber], dataType: MLMultiArrayDataType) throws -> MLMultiArray {
    try onSurface(shape: shape, dataType: dataType) ?? MLMultiArray(shape: shape, dataType: dataType)
  }

  private static func onSurface(shape: [NSNumber], dataType: MLMultiArrayDataType) -> MLMultiArray? {
    guard dataType == .float16, let width = shape.last?.intValue else { return nil }
    let height = shape.dropLast().reduce(1) { $0 * $1.intValue }
    let properties = [kCVPixelBufferIOSurfacePropertiesKey as String: NSDictionary()]
    var buffer: CVPixelBuffer?
    let status = CVPixelBufferCreate(
      nil, width, height, kCVPixelFormatType_OneComponent16Half,
      NSDictionary(dictionary: properties) as CFDictionary, &buffer)
    guard status == kCVReturnSuccess, let buffer else { return nil }
    return MLMultiArray(pixelBuffer: buffer, shape: shape)
  }

  /// An array with the values of `tensor`.
  static func holding(_ tensor: Tensor, as dataType: MLMultiArrayDataType) throws -> MLMultiArray {
    let array = try allocate(shape: tensor.spec.shape.map { NSNumber(value: $0) }, dataType: dataType)
    array.withUnsafeMutableBytes { target, strides in
      tensor.bytes.withUnsafeBytes { source in
        forEachRun(shape: tensor.spec.shape, strides: strides, elementBytes: tensor.spec.dtype.bytes) {
          UnsafeMutableRawBufferPointer(rebasing: target[$1]).copyMemory(from: .init(rebasing: source[$0]))
        }
      }
    }
    return array
  }

  /// Type and shape; nil where the protocol has no such type.
  var spec: TensorSpec? {
    dataType.dtype.map { TensorSpec(dtype: $0, shape: shape.map(\.intValue)) }
  }

  /// A dense copy of the values.
  func tensor(as spec: TensorSpec) -> Tensor {
    var dense = [UInt8](repeating: 0, count: count * spec.dtype.bytes)
    withUnsafeBytes { source in
      dense.withUnsafeMutableBytes { target in
        forEachRun(shape: spec.shape, strides: strides.map(\.intValue), elementBytes: spec.dtype.bytes) {
          UnsafeMutableRawBufferPointer(rebasing: target[$0]).copyMemory(from: .init(rebasing: source[$1]))
        }
      }
    }
    return Tensor(spec: spec, bytes: dense)
  }
}

/// Calls `body` with byte ranges, in a dense row-major array and in one with `strides` (in elements), that hold
/// the same elements. Neighbours in memory come in one range.
private func forEachRun(
  shape: [Int], strides: [Int], elementBytes: Int, _ body: (Range<Int>, Range<Int>) -> Void
) {
  guard !shape.contains(0) else { return }
  // Trailing dimensions that are dense in both arrays are copied at once.
  var split = shape.count
  var run = 1
  while split > 0, strides[split - 1] == run || shape[split - 1] == 1 {
    run *= shape[split - 1]
    split -= 1
  }
  let runBytes = run * elementBytes
  var index = [Int](repeating: 0, count: split)
  var dense = 0
  while true {
    let offset = zip(index, strides).reduce(0) { $0 + $1.0 * $1.1 } * elementBytes
    body(dense..<(dense + runBytes), offset..<(offset + runBytes))
    dense += runBytes
    guard let digit = index.indices.last(where: { index[$0] + 1 < shape[$0] }) else { return }
    index[digit] += 1
    for later in (digit + 1)..<split { index[later] = 0 }
  }
}
