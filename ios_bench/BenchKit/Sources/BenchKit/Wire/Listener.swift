import Foundation

/// The agent can't listen on its port.
public struct ListenError: LocalizedError {
  public let errorDescription: String?
}

/// A listening socket on the loopback interface.
package final class Listener: @unchecked Sendable {
  package let port: UInt16
  let socket: Int32
  private var isOpen = true

  /// Connections that the system holds until they are accepted, which takes a moment even while a model is timed.
  private static let backlog: Int32 = 128

  /// Listens on `port`, or on any free one where that is 0. Throws ListenError.
  package init(port: UInt16) throws {
    Self.raiseDescriptorLimit()
    let socket = Self.streamSocket()
    do {
      try retrying("socket") { socket }
      var yes: Int32 = 1
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout.size(ofValue: yes)))
      try retrying("bind") { Self.withLoopback(port) { bind(socket, $0, $1) } }
      try retrying("listen") { listen(socket, Self.backlog) }
      self.port = try Self.boundPort(of: socket)
      self.socket = socket
    } catch let error as PosixError {
      if socket >= 0 { closeDescriptor(socket) }
      let reason = error.code == EADDRINUSE ? "is in use" : "can't be used (\(error.localizedDescription))"
      throw ListenError(
        errorDescription: "port \(port) \(reason); choose another one, or 0 to take a free one")
    }
  }

  /// Apple's systems give a process 256 descriptors unless it asks for more; where they refuse, fewer can wait.
  private static func raiseDescriptorLimit() {
    #if canImport(Darwin)
      let resource = RLIMIT_NOFILE
    #else
      let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    #endif
    var limit = rlimit()
    guard getrlimit(resource, &limit) == 0, limit.rlim_cur < Limits.descriptors else { return }
    limit.rlim_cur = min(limit.rlim_max, rlim_t(Limits.descriptors))
    setrlimit(resource, &limit)
  }

  deinit { close() }

  /// Who has connected; waits where nobody has. Throws PosixError.
  package func accept() throws -> Int32 {
    try retrying("accept") { systemAccept(socket) }
  }

  /// Frees the port. For the thread that accepts, after which it accepts no more.
  package func close() {
    if isOpen { closeDescriptor(socket) }
    isOpen = false
  }

  package static func streamSocket() -> Int32 {
    #if canImport(Darwin)
      return Foundation.socket(AF_INET, SOCK_STREAM, 0)
    #else
      return Foundation.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    #endif
  }

  package static func withLoopback<Result>(
    _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
  ) -> Result {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
  }

  package static func boundPort(of socket: Int32) throws -> UInt16 {
    var address = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    try withUnsafeMutablePointer(to: &address) { pointer in
      try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        _ = try retrying("getsockname") { getsockname(socket, address, &length) }
      }
    }
    return UInt16(bigEndian: address.sin_port)
  }
}

/// `accept` of the system, under a name that no method hides.
private func systemAccept(_ socket: Int32) -> Int32 {
  accept(socket, nil, nil)
}
