import Foundation

/// Heartbeats from a separate thread during work that cannot be interrupted. They show that the agent is alive, not
/// that the work progresses.
final class Heartbeat: @unchecked Sendable {
  private let condition = NSCondition()
  /// Both guarded by `condition`.
  private var isEnded = false
  private var isSilent: Bool

  /// Calls `beat` every `seconds` (0: never) until it throws or `end` is called.
  init(everySeconds seconds: Double, beat: @escaping @Sendable () throws -> Void) {
    isSilent = seconds <= 0
    guard !isSilent else { return }
    let thread = Thread { [self] in run(seconds, beat) }
    thread.name = "signs of life"
    thread.start()
  }

  /// Returns once none is under way; none follows.
  func end() {
    condition.withLock {
      isEnded = true
      condition.broadcast()
      while !isSilent { condition.wait() }
    }
  }

  private func run(_ seconds: Double, _ beat: () throws -> Void) {
    condition.withLock {
      var next = Date(timeIntervalSinceNow: seconds)
      while !isEnded {
        if condition.wait(until: next) { continue }
        guard !isEnded, (try? beat()) != nil else { break }
        next = Date(timeIntervalSinceNow: seconds)
      }
      isSilent = true
      condition.broadcast()
    }
  }
}
