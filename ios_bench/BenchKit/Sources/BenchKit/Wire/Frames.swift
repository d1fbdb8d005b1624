/// A byte stream broke the framing rules. It ends the connection.
package struct FrameError: Error, Equatable {
  package let code: ErrorCode
  package let message: String

  package init(_ code: ErrorCode, _ message: String) {
    self.code = code
    self.message = message
  }
}

/// What frames are read from.
package protocol ByteSource: AnyObject {
  /// Fills `buffer` and returns how many bytes that were: fewer only where the stream has ended.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int
}

/// A frame's header, and its payload that is yet to be read.
package struct Frame {
  package let header: JSON
  package let payload: Payload

  /// A frame without payload on `source`.
  init(header: JSON, on source: any ByteSource) {
    self.init(header: header, payload: Payload(source: source, bytes: 0))
  }

  private init(header: JSON, payload: Payload) {
    self.header = header
    self.payload = payload
  }

  /// The next frame of `source`; nil where the stream ended between frames. Every size is bounded before
  /// anything of that size is read. Throws FrameError, and what `source` throws.
  package static func read(from source: any ByteSource) throws -> Frame? {
    guard let first = try source.readUpTo(1).first else { return nil }
    let rest = try source.readExactly(3, part: "header length")
    let length = rest.reduce(Int(first)) { $0 << 8 | Int($1) }
    guard length <= Limits.headerBytes else {
      throw FrameError(.headerTooLarge, "a header of \(length) bytes is over the limit of 1 MiB")
    }
    let header = try decode(try source.readExactly(length, part: "header"))
    return Frame(header: header, payload: Payload(source: source, bytes: try payloadBytes(of: header)))
  }

  /// Length prefix and header of a frame whose payload of `payloadBytes` is sent next.
  package static func encode(_ fields: [JSON.Field], payloadBytes: Int = 0) throws -> [UInt8] {
    let announced = payloadBytes > 0 ? [JSON.Field("payload", .integer(payloadBytes))] : []
    let header = JSON.object(fields + announced).bytes
    guard payloadBytes <= Limits.payloadBytes else {
      throw FrameError(.payloadTooLarge, "a payload of \(payloadBytes) bytes is over the limit of 1 GiB")
    }
    guard header.count <= Limits.headerBytes else {
      throw FrameError(.headerTooLarge, "a header of \(header.count) bytes is over the limit of 1 MiB")
    }
    return withUnsafeBytes(of: UInt32(header.count).bigEndian, Array.init) + header
  }

  private static func decode(_ bytes: [UInt8]) throws -> JSON {
    do {
      let header = try JSONReader.read(bytes)
      guard case .object = header else { throw JSONError(message: "it is not an object") }
      return header
    } catch let error as JSONError {
      throw FrameError(.badHeader, "the header is not what the protocol takes: \(error.message)")
    }
  }

  private static func payloadBytes(of header: JSON) throws -> Int {
    switch header["payload"] {
    case nil: return 0
    case .integer(let bytes) where (0...Limits.payloadBytes).contains(bytes): return bytes
    case .integer(let bytes) where bytes > 0:
      throw FrameError(.payloadTooLarge, "a payload of \(bytes) bytes is over the limit of 1 GiB")
    case .hugeInteger(let bytes) where bytes > 0:
      throw FrameError(.payloadTooLarge, "a payload of \(bytes) bytes is over the limit of 1 GiB")
    default: throw FrameError(.badHeader, "payload must be a non-negative integer")
    }
  }
}

/// The payload bytes that follow a header, each to be read once and in order.
package final class Payload {
  package let bytes: Int
  private var left: Int
  private let source: any ByteSource

  init(source: any ByteSource, bytes: Int) {
    self.source = source
    self.bytes = bytes
    self.left = bytes
  }

  /// Gives what is left to `body`, in pieces of at most 256 KiB. Throws FrameError `truncated` where the stream
  /// ends early; memory grows only with what has arrived.
  package func forEachChunk(_ body: (UnsafeRawBufferPointer) throws -> Void) throws {
    let chunk = UnsafeMutableRawBufferPointer.allocate(
      byteCount: min(left, Limits.chunkBytes), alignment: 16)
    defer { chunk.deallocate() }
    while left > 0 {
      let wanted = UnsafeMutableRawBufferPointer(rebasing: chunk[..<min(left, chunk.count)])
      try source.fill(wanted, part: "payload")
      left -= wanted.count
      try body(UnsafeRawBufferPointer(wanted))
    }
  }

  /// All that is left.
  package func read() throws -> [UInt8] {
    var all: [UInt8] = []
    try forEachChunk { all.append(contentsOf: $0) }
    return all
  }

  /// Reads and drops what is left, so that the next frame can be read.
  package func drain() throws {
    try forEachChunk { _ in }
  }
}

extension ByteSource {
  fileprivate func readUpTo(_ count: Int) throws -> [UInt8] {
    try [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      initialized = try read(
        into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[..<count]))
    }
  }

  fileprivate func readExactly(_ count: Int, part: String) throws -> [UInt8] {
    let bytes = try readUpTo(count)
    guard bytes.count == count else { throw FrameError.truncated(part) }
    return bytes
  }

  fileprivate func fill(_ buffer: UnsafeMutableRawBufferPointer, part: String) throws {
    guard try read(into: buffer) == buffer.count else { throw FrameError.truncated(part) }
  }
}

extension FrameError {
  fileprivate static func truncated(_ part: String) -> FrameError {
    FrameError(.truncated, "the stream ended inside the \(part) of a frame")
  }
}
