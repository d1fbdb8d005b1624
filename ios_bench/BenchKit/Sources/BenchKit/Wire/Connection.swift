import Foundation

/// A connected socket. One thread reads and writes; another one may cut it off.
package final class Connection: ByteSource, @unchecked Sendable {
  /// Nothing came, or nothing could be sent, for as long as the connection allows.
  package struct TimedOut: Error {}

  /// The peer is gone, or this side was cut off.
  package struct Lost: Error {
    let reason: PosixError
  }

  /// The last reply is to arrive: a close with input unread would make the kernel reset the connection.
  static let lingerSeconds = 1.0
  static let lingerBytes = 4 << 20

  let socket: Int32
  private let lock = NSLock()
  private var isOpen = true

  /// Takes over the connected `socket`, on which a read or a write waits for at most `timeoutSeconds`.
  package init(socket: Int32, timeoutSeconds: Double) {
    self.socket = socket
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] { setTimeout(timeoutSeconds, option) }
    setOption(Int32(IPPROTO_TCP), TCP_NODELAY, Int32(1))
    #if canImport(Darwin)
      setOption(SOL_SOCKET, SO_NOSIGPIPE, Int32(1))
    #endif
  }

  deinit { close() }

  package func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    var count = 0
    while count < buffer.count {
      let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[count...])
      let got = try transfer("recv") { recv(socket, rest.baseAddress, rest.count, 0) }
      if got == 0 { break }
      count += got
    }
    return count
  }

  /// What is there to be read, at most `count` bytes; empty at the end of the stream, nil where nothing is there yet.
  func readWaiting(_ count: Int) throws -> [UInt8]? {
    do {
      return try [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
        initialized = try transfer("recv") { recv(socket, buffer.baseAddress, count, Int32(MSG_DONTWAIT)) }
      }
    } catch is TimedOut {
      return nil
    }
  }

  /// Sends a last answer as far as that needs no waiting, and nothing after it.
  func sendLast(_ bytes: [UInt8]) throws {
    _ = try bytes.withUnsafeBytes { buffer in
      try transfer("send") {
        send(socket, buffer.baseAddress, buffer.count, Self.sendFlags | Int32(MSG_DONTWAIT))
      }
    }
    _ = shutdown(socket, Int32(SHUT_WR))
  }

  /// Sends all of `bytes`.
  package func write(_ bytes: [UInt8]) throws {
    try bytes.withUnsafeBytes { buffer in
      var sent = 0
      while sent < buffer.count {
        let rest = UnsafeRawBufferPointer(rebasing: buffer[sent...])
        sent += try transfer("send") { send(socket, rest.baseAddress, rest.count, Self.sendFlags) }
      }
    }
  }

  /// Waits until there is something to read, or the end of the stream; false after `seconds`, if not nil.
  package func waitForInput(seconds: Double?) throws -> Bool {
    var descriptor = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
    let milliseconds = seconds.map { Int32(($0 * 1000).rounded(.up)) } ?? -1
    return try retrying("poll") { poll(&descriptor, 1, milliseconds) } > 0
  }

  /// Whether the peer has not closed its side; does not wait.
  package func peerIsThere() -> Bool {
    guard (try? waitForInput(seconds: 0)) == true else { return true }
    var byte: UInt8 = 0
    return recv(socket, &byte, 1, Int32(MSG_PEEK)) > 0
  }

  /// Closes after a final answer. What the peer has sent is taken off first, for a bounded time and size.
  package func closeAfterAnswer() {
    defer { close() }
    guard shutdown(socket, Int32(SHUT_WR)) == 0 else { return }
    let deadline = monotonicNanoseconds() + UInt64(Self.lingerSeconds * 1e9)
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    var left = Self.lingerBytes
    while left > 0 {
      let now = monotonicNanoseconds()
      guard now < deadline, (try? waitForInput(seconds: Double(deadline - now) / 1e9)) == true else { return }
      let got = recv(socket, &buffer, buffer.count, 0)
      if got <= 0 { return }
      left -= got
    }
  }

  /// Ends both directions at once, so that waiting threads return. Thread-safe.
  package func cutOff() {
    lock.withLock { if isOpen { _ = shutdown(socket, Int32(SHUT_RDWR)) } }
  }

  func close() {
    lock.withLock {
      if isOpen { closeDescriptor(socket) }
      isOpen = false
    }
  }

  private func transfer(_ name: String, _ call: () -> Int) throws -> Int {
    do {
      return try retrying(name, call)
    } catch let error as PosixError where error.code == EAGAIN || error.code == EWOULDBLOCK {
      throw TimedOut()
    } catch let error as PosixError {
      throw Lost(reason: error)
    }
  }

  private func setTimeout(_ seconds: Double, _ option: Int32) {
    let whole = seconds.rounded(.down)
    setOption(
      SOL_SOCKET, option, timeval(tv_sec: Int(whole), tv_usec: .init((seconds - whole) * 1e6)))
  }

  private func setOption<Value>(_ level: Int32, _ option: Int32, _ value: Value) {
    withUnsafeBytes(of: value) { bytes in
      _ = setsockopt(socket, level, option, bytes.baseAddress, socklen_t(bytes.count))
    }
  }

  #if canImport(Darwin)
    private static let sendFlags: Int32 = 0
  #else
    private static let sendFlags = Int32(MSG_NOSIGNAL)
  #endif
}

/// `close` of the system, under a name that no method hides.
func closeDescriptor(_ descriptor: Int32) {
  close(descriptor)
}
