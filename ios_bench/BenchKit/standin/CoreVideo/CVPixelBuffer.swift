// The part of Apple's Core Video that CoreMLRunner uses, for Linux. Signatures follow the Swift interface of the iOS
// 18.2 SDK; Core Foundation's types are Foundation's here, which there they are bridged to.
import Foundation

public typealias CFAllocator = NSObject
public typealias CFDictionary = NSDictionary
public typealias CVReturn = Int32
public typealias OSType = UInt32

public let kCVReturnSuccess: CVReturn = 0
public let kCVReturnInvalidPixelFormat: CVReturn = -6680
/// `L00h`
// swift-format-ignore: AlwaysUseLowerCamelCase
public let kCVPixelFormatType_OneComponent16Half: OSType = 0x4C30_3068
public let kCVPixelBufferIOSurfacePropertiesKey = "IOSurfaceProperties"

/// An image in memory: here only its size and format.
public final class CVPixelBuffer: NSObject {
  public let width: Int
  public let height: Int
  public let isOnSurface: Bool

  init(width: Int, height: Int, isOnSurface: Bool) {
    self.width = width
    self.height = height
    self.isOnSurface = isOnSurface
  }
}

// swift-format-ignore: AlwaysUseLowerCamelCase
public func CVPixelBufferCreate(
  _ allocator: CFAllocator?, _ width: Int, _ height: Int, _ pixelFormatType: OSType,
  _ pixelBufferAttributes: CFDictionary?, _ pixelBufferOut: UnsafeMutablePointer<CVPixelBuffer?>
) -> CVReturn {
  guard pixelFormatType == kCVPixelFormatType_OneComponent16Half, width > 0, height > 0 else {
    return kCVReturnInvalidPixelFormat
  }
  let isOnSurface = pixelBufferAttributes?[kCVPixelBufferIOSurfacePropertiesKey] != nil
  pixelBufferOut.pointee = CVPixelBuffer(width: width, height: height, isOnSurface: isOnSurface)
  return kCVReturnSuccess
}
