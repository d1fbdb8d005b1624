/// Asked during a run with the number of executions so far.
final class RunHeartbeat {
  private let clientIsThere: () -> Bool
  private let everyNanoseconds: UInt64
  private let beat: (Int) throws -> Void
  private var last = monotonicNanoseconds()

  init(
    clientIsThere: @escaping () -> Bool, everyNanoseconds: UInt64, beat: @escaping (Int) throws -> Void
  ) {
    self.clientIsThere = clientIsThere
    self.everyNanoseconds = everyNanoseconds
    self.beat = beat
  }

  /// Beats where it is time to, and says whether the client is there.
  func goOn(_ executions: Int) -> Bool {
    if monotonicNanoseconds() - last >= everyNanoseconds {
      guard (try? beat(executions)) != nil else { return false }
      last = monotonicNanoseconds()
    }
    return clientIsThere()
  }
}
