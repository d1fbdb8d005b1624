import Foundation

/// Ends another thread's `poll` on `descriptor`.
final class WakeUp: Sendable {
  let descriptor: Int32
  private let writing: Int32

  /// Throws PosixError.
  init() throws {
    var pipes: [Int32] = [-1, -1]
    try retrying("pipe") { pipe(&pipes) }
    (descriptor, writing) = (pipes[0], pipes[1])
  }

  deinit {
    for descriptor in [descriptor, writing] { closeDescriptor(descriptor) }
  }

  /// For any thread.
  func call() {
    var byte: UInt8 = 0
    _ = write(writing, &byte, 1)
  }

  /// Takes the calls off, of which there must be one.
  func clear() {
    var bytes = [UInt8](repeating: 0, count: 64)
    _ = read(descriptor, &bytes, bytes.count)
  }
}
