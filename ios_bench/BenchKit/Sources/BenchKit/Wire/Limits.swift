/// Bounds of PROTOCOL.md, and those of this agent that follow from them.
package enum Limits {
  package static let headerBytes = 1 << 20
  /// Header of a connection's first frame: what a stranger can make the agent keep and parse.
  package static let helloBytes = 4_096
  /// Connections that wait; one more drives out the one that has waited longest without the token. So many must come
  /// between a client's connection and its hello to drive it out.
  package static let waiting = 512
  /// Descriptors that the agent asks for where the system gives it fewer: those that wait take one each, as do clients
  /// in the same process in tests.
  package static let descriptors = 2_048
  package static let payloadBytes = 1 << 30
  package static let depth = 32
  package static let handles = 256
  package static let visits = 200_000
  package static let warmup = 1_000
  package static let warmupMilliseconds = 60_000
  package static let paceMicroseconds = 1_000_000
  package static let heartbeatSeconds = 600
  package static let tensors = 64
  package static let rank = 8
  package static let options = 32
  package static let operations = 8_192
  package static let largestCount = (1 << 53) - 1

  /// Payloads are read and stored in pieces of this size.
  package static let chunkBytes = 1 << 18

  /// Names and types of a placement's operations, in bytes. The other parts of 8,192 entries take at most
  /// 0.6 MB, and a character may be escaped, so that a header with more could pass its own bound.
  package static let placementTextBytes = 350_000
}
