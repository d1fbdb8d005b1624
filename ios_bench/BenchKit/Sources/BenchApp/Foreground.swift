import Foundation

/// Whether the app is on the screen, and how often it left it. Written by the view, read by the probe.
public final class Foreground: @unchecked Sendable {
  private let lock = NSLock()
  private var active = false
  private var lossCount = 0

  public init() {}

  public var isActive: Bool { lock.withLock { active } }

  /// Times that the app stopped being active.
  public var losses: Int { lock.withLock { lossCount } }

  /// Inactive counts as gone: something covers the app, and takes the processors that it would be timed on.
  public func change(isActive: Bool) {
    lock.withLock {
      if active && !isActive { lossCount += 1 }
      active = isActive
    }
  }
}
