import Foundation

/// Moments that are a period apart, as a camera's frames come: the processor idles between calls, and its clock falls.
/// What comes late shifts all that follow, so that none are crowded.
package struct Pace {
  private let periodNanoseconds: UInt64
  private let clock: () -> UInt64
  private let sleep: (UInt64) -> Void
  private var next: UInt64 = 0

  package init(
    periodNanoseconds: UInt64, clock: @escaping () -> UInt64 = { monotonicNanoseconds() },
    sleep: @escaping (UInt64) -> Void = { Thread.sleep(forTimeInterval: Double($0) / 1e9) }
  ) {
    self.periodNanoseconds = periodNanoseconds
    self.clock = clock
    self.sleep = sleep
  }

  /// Waits until the next moment; the first one is now. The time waited, in nanoseconds.
  package mutating func wait() -> UInt64 {
    guard periodNanoseconds > 0 else { return 0 }
    let now = clock()
    let waited = next > now ? next - now : 0
    if waited > 0 { sleep(waited) }
    next = now + waited + periodNanoseconds
    return waited
  }
}
