import Foundation

/// Runs an actor on a thread of its own, at the highest priority that the system gives to a program.
///
/// Whoever is timed on it shares it with nobody, and a blocking call there keeps no thread from Swift's own pool.
package final class ThreadExecutor: SerialExecutor, @unchecked Sendable {
  private let condition = NSCondition()
  private var jobs: [UnownedJob] = []
  private var isStopped = false

  /// Runtimes put buffers on the stack; a thread's default on iOS is half a mebibyte.
  private static let stackBytes = 8 << 20

  package init(name: String) {
    let thread = Thread { [self] in run() }
    thread.name = name
    thread.stackSize = Self.stackBytes
    thread.qualityOfService = .userInteractive
    thread.start()
  }

  package func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    condition.withLock {
      jobs.append(job)
      condition.signal()
    }
  }

  package func asUnownedSerialExecutor() -> UnownedSerialExecutor {
    UnownedSerialExecutor(ordinary: self)
  }

  /// Ends the thread once it has run what is enqueued; nothing may be enqueued after it.
  package func stop() {
    condition.withLock {
      isStopped = true
      condition.signal()
    }
  }

  private func run() {
    while let job = next() {
      withAutoreleasePool { job.runSynchronously(on: asUnownedSerialExecutor()) }
    }
  }

  private func next() -> UnownedJob? {
    condition.withLock {
      while jobs.isEmpty {
        if isStopped { return nil }
        condition.wait()
      }
      return jobs.removeFirst()
    }
  }
}

/// Class of the calling thread's quality of service, in the words of the protocol; nil where there is none.
package func currentQualityOfService() -> String? {
  #if canImport(Darwin)
    switch qos_class_self() {
    case QOS_CLASS_USER_INTERACTIVE: return "user_interactive"
    case QOS_CLASS_USER_INITIATED: return "user_initiated"
    case QOS_CLASS_DEFAULT: return "default"
    case QOS_CLASS_UTILITY: return "utility"
    case QOS_CLASS_BACKGROUND: return "background"
    default: return nil
    }
  #else
    return nil
  #endif
}
