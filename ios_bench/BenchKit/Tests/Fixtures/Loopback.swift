import BenchKit
import Foundation

/// A socket that is connected to `port` of the loopback.
package func connectLoopback(_ port: UInt16) throws -> Int32 {
  let socket = try retrying("socket") { Listener.streamSocket() }
  try retrying("connect") { Listener.withLoopback(port) { connect(socket, $0, $1) } }
  return socket
}

/// A port of the loopback that nobody else is given: it is bound, but nothing listens on it.
package final class HeldPort: Sendable {
  package let number: UInt16
  private let socket: Int32

  package init() throws {
    let socket = try retrying("socket") { Listener.streamSocket() }
    self.socket = socket
    var yes: Int32 = 1
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout.size(ofValue: yes)))
    try retrying("bind") { Listener.withLoopback(0) { bind(socket, $0, $1) } }
    number = try Listener.boundPort(of: socket)
    #if canImport(Darwin)
      // There a bound port is nobody else's to listen on.
      close(socket)
    #endif
  }

  #if !canImport(Darwin)
    deinit { close(socket) }
  #endif
}
