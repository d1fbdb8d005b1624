import Foundation

/// Ends this process when its stdin closes or its parent is gone, so that no agent is left behind.
enum ParentWatch {
  /// Besides the end of stdin, which children that a dead parent left behind may hold open. Rare, so that it does
  /// not wake up inside a timed call more than a few times an hour.
  private static let pollMilliseconds: Int32 = 10_000

  static func start() {
    let parent = getppid()
    let thread = Thread {
      while getppid() == parent {
        var input = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
        guard poll(&input, 1, pollMilliseconds) > 0 else { continue }
        var buffer = [UInt8](repeating: 0, count: 4096)
        if read(STDIN_FILENO, &buffer, buffer.count) <= 0 { break }
      }
      _exit(0)
    }
    thread.name = "parent-watch"
    thread.start()
  }
}
