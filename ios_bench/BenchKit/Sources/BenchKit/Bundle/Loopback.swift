import Foundation

/// The client of an agent on this machine's loopback: requests out, replies in, as they are.
final class Loopback {
  /// Longer than any load or batch of today.
  private static let timeoutSeconds = 7200.0

  private let connection: Connection
  private var nextID = 1

  init(port: UInt16) throws {
    let socket = try retrying("socket") { Listener.streamSocket() }
    try retrying("connect") { Listener.withLoopback(port) { connect(socket, $0, $1) } }
    connection = Connection(socket: socket, timeoutSeconds: Self.timeoutSeconds)
  }

  /// The reply to a request, an error too, without its id; the payload is a part of a file. Throws BundleStopped
  /// where the agent is gone.
  func ask(
    _ fields: [JSON.Field], payload: Range<Int> = 0..<0, of path: String = ""
  ) throws -> (header: JSON, payload: [UInt8]) {
    do {
      try connection.write(
        try Frame.encode([JSON.Field("id", .integer(nextID))] + fields, payloadBytes: payload.count))
      nextID += 1
      if !payload.isEmpty { try send(payload, of: path) }
      guard let frame = try Frame.read(from: connection) else {
        throw BundleStopped("the agent closed the connection; run the bundle again, it goes on")
      }
      return (frame.header.without("id"), try frame.payload.read())
    } catch let error as FrameError {
      throw BundleStopped("the agent was lost (\(error.message)); run the bundle again, it goes on")
    } catch is Connection.Lost {
      throw BundleStopped("the agent was lost; run the bundle again, it goes on")
    }
  }

  func ask(_ fields: KeyValuePairs<String, JSON>) throws -> (header: JSON, payload: [UInt8]) {
    try ask(fields.map { JSON.Field($0.key, $0.value) })
  }

  /// As `ask`; throws BundleStopped with the message of an error.
  func demand(_ fields: KeyValuePairs<String, JSON>) throws -> JSON {
    let header = try ask(fields).header
    if let error = header["error"] { throw BundleStopped(error["message"]?.text ?? "the agent refused") }
    return header
  }

  private func send(_ payload: Range<Int>, of path: String) throws {
    guard let file = FileHandle(forReadingAtPath: path) else {
      throw BundleError("\(path) can't be read; copy the bundle again")
    }
    defer { try? file.close() }
    for start in stride(from: payload.lowerBound, to: payload.upperBound, by: Limits.chunkBytes) {
      try connection.write(try file.bytes(start..<min(start + Limits.chunkBytes, payload.upperBound)))
    }
  }
}
