import CoreVideo
import Foundation

public enum MLMultiArrayDataType: Int, Sendable {
  case double = 65600
  case float32 = 65568
  case float16 = 65552
  case int32 = 131104
  /// iOS 26.
  case int8 = 131080
}

/// Numbers with a shape; strides count elements and need not be those of a dense array.
open class MLMultiArray: NSObject {
  public let shape: [NSNumber]
  public let strides: [NSNumber]
  public let dataType: MLMultiArrayDataType
  public let pixelBuffer: CVPixelBuffer?
  private let storage: UnsafeMutableRawBufferPointer

  public convenience init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {
    var strides: [Int] = []
    var step = 1
    for size in shape.reversed() {
      strides.insert(step, at: 0)
      step *= size.intValue
    }
    self.init(shape: shape.map(\.intValue), dataType: dataType, strides: strides)
  }

  /// Rows of a surface begin at multiples of 64 bytes.
  public convenience init(pixelBuffer: CVPixelBuffer, shape: [NSNumber]) {
    let sizes = shape.map(\.intValue)
    precondition(
      pixelBuffer.isOnSurface && pixelBuffer.width == sizes.last
        && pixelBuffer.height == sizes.dropLast().reduce(1, *))
    var strides = [1]
    var step = (pixelBuffer.width + 31) / 32 * 32
    for size in sizes.dropLast().reversed() {
      strides.insert(step, at: 0)
      step *= size
    }
    self.init(shape: sizes, dataType: .float16, strides: strides, pixelBuffer: pixelBuffer)
  }

  public init(
    shape: [Int], dataType: MLMultiArrayDataType, strides: [Int], pixelBuffer: CVPixelBuffer? = nil
  ) {
    self.pixelBuffer = pixelBuffer
    self.shape = shape.map { NSNumber(value: $0) }
    self.strides = strides.map { NSNumber(value: $0) }
    self.dataType = dataType
    let last = zip(shape, strides).reduce(0) { $0 + max($1.0 - 1, 0) * $1.1 }
    let scalars = shape.contains(0) ? 0 : last + 1
    storage = .allocate(byteCount: scalars * dataType.byteCount, alignment: 64)
    storage.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { storage.deallocate() }

  open var count: Int { shape.reduce(1) { $0 * $1.intValue } }

  public func withUnsafeBytes<R>(_ body: (_ ptr: UnsafeRawBufferPointer) throws -> R) rethrows -> R {
    try body(UnsafeRawBufferPointer(storage))
  }

  public func withUnsafeMutableBytes<R>(
    _ body: (_ ptr: UnsafeMutableRawBufferPointer, _ strides: [Int]) throws -> R
  ) rethrows -> R {
    try body(storage, strides.map(\.intValue))
  }
}

extension MLMultiArrayDataType {
  var byteCount: Int { (rawValue & 0xff) / 8 }
}
