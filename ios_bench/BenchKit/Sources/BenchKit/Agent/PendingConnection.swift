/// One who waits until `deadline`: for its hello to arrive, then (`hello` is there) for the place, or (`isLeaving`) to
/// be gone.
final class PendingConnection {
  let connection: Connection
  /// In monotonic nanoseconds.
  var deadline: UInt64
  private(set) var hello: JSON?
  var refusal: OpError?
  var isLeaving = false
  private var received: [UInt8] = []
  private var leftBytes = Connection.lingerBytes

  private static let prefixBytes = 4
  private static let dropBytes = 1 << 16

  init(_ connection: Connection, deadline: UInt64) {
    self.connection = connection
    self.deadline = deadline
  }

  var holdsToken: Bool { hello != nil && refusal == nil && !isLeaving }

  /// Whether it waits to be heard, and not for the place.
  var isHeard: Bool { hello == nil || isLeaving }

  /// Takes in what has arrived of the hello, and nothing behind it; false where the client left without a word.
  func read() throws -> Bool {
    guard let piece = try connection.readWaiting(try wantedBytes() - received.count) else { return true }
    received += piece
    if piece.isEmpty {
      guard !received.isEmpty else { return false }
      throw FrameError(.truncated, "the stream ended inside the first frame")
    }
    if received.count == (try wantedBytes()) { hello = try Frame.read(from: ByteStream(received))?.header }
    return true
  }

  /// Drops what has arrived; false where no more is to be waited for.
  func drop() throws -> Bool {
    guard let piece = try connection.readWaiting(Self.dropBytes) else { return true }
    leftBytes -= piece.count
    return !piece.isEmpty && leftBytes > 0
  }

  /// Of the part that is being received: of the length, then of all.
  private func wantedBytes() throws -> Int {
    guard received.count >= Self.prefixBytes else { return Self.prefixBytes }
    let length = received[..<Self.prefixBytes].reduce(0) { $0 << 8 | Int($1) }
    guard length <= Limits.helloBytes else {
      throw FrameError(.headerTooLarge, "a first header of \(length) bytes is over \(Limits.helloBytes)")
    }
    return Self.prefixBytes + length
  }
}
