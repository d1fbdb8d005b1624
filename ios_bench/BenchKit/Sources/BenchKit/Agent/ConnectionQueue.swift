import Foundation

/// Queues connections until one has shown the token and no other client is served.
///
/// One thread for all, which only sleeps unless somebody calls: it takes no time from what is timed else.
final class ConnectionQueue: @unchecked Sendable {
  private let config: AgentConfig
  private let listener: Listener
  private let emit: @Sendable (AgentEvent) -> Void
  private let wakeUp: WakeUp
  private var waiting: [PendingConnection] = []
  private let lock = NSLock()
  private var isTaken = false
  private var isStopped = false

  private static let acceptedAtOnce = 64
  private static let noDescriptor = [EMFILE, ENFILE, ENOBUFS, ENOMEM]
  /// After a failure to accept a connection that no one who waits could be dropped for.
  private static let retrySeconds = 0.1

  /// Throws PosixError.
  init(_ config: AgentConfig, _ listener: Listener, emit: @escaping @Sendable (AgentEvent) -> Void) throws {
    self.config = config
    self.listener = listener
    self.emit = emit
    wakeUp = try WakeUp()
  }

  /// The client that was given is gone. For any thread.
  func freePlace() {
    lock.withLock { isTaken = false }
    wakeUp.call()
  }

  /// Ends `receive`, from any thread.
  func stop() {
    lock.withLock { isStopped = true }
    wakeUp.call()
  }

  /// Gives one at a time to `serve`, with its hello, which is right and was not yet answered. Returns once stopped, when
  /// those who wait are dropped. Throws PosixError where the port is no longer usable.
  func receive(_ serve: (Connection, JSON) -> Void) throws {
    defer { waiting = [] }
    while !lock.withLock({ isStopped }) {
      try waitAndHear()
      sendAwayLate()
      seat(serve)
    }
  }

  private var placeIsTaken: Bool { lock.withLock { isTaken } }

  private func waitAndHear() throws {
    // A client that waits for the place is not polled: poll ignores negative descriptors.
    let heard = waiting
    let descriptors =
      [listener.socket, wakeUp.descriptor] + heard.map { $0.isHeard ? $0.connection.socket : -1 }
    var polled = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    let milliseconds = self.milliseconds()
    try retrying("poll") { poll(&polled, nfds_t(polled.count), milliseconds) }
    for (pending, state) in zip(heard, polled.dropFirst(2)) where state.revents != 0 { hear(pending) }
    if polled[1].revents != 0 { wakeUp.clear() }
    if polled[0].revents != 0 { try acceptAll() }
  }

  /// Accepts some of those who have called before those that wait are heard again: a client behind hundreds is reached
  /// soon.
  private func acceptAll() throws {
    var called = pollfd(fd: listener.socket, events: Int16(POLLIN), revents: 0)
    for _ in 0..<Self.acceptedAtOnce {
      guard try retrying("poll", { poll(&called, 1, 0) }) > 0 else { return }
      try accept()
    }
  }

  /// Until the next deadline; -1 where there is none.
  private func milliseconds() -> Int32 {
    guard let next = waiting.map(\.deadline).min() else { return -1 }
    let now = monotonicNanoseconds()
    return next <= now ? 0 : Int32(clamping: (next - now) / 1_000_000 + 1)
  }

  private func accept() throws {
    let socket: Int32
    do {
      socket = try listener.accept()
    } catch let error as PosixError where error.code == ECONNABORTED {
      return
    } catch let error as PosixError where Self.noDescriptor.contains(error.code) {
      if !dropOldest() { Thread.sleep(forTimeInterval: Self.retrySeconds) }
      return
    }
    if waiting.count >= Limits.waiting { dropOldest() }
    let connection = Connection(socket: socket, timeoutSeconds: config.timeouts.frameSeconds)
    waiting.append(PendingConnection(connection, deadline: deadline(config.timeouts.helloSeconds)))
  }

  /// Drops who has waited longest, those who hold the token last; false where nobody waits.
  @discardableResult
  private func dropOldest() -> Bool {
    guard let oldest = waiting.first(where: { !$0.holdsToken }) ?? waiting.first else { return false }
    drop(oldest)
    return true
  }

  private func drop(_ pending: PendingConnection) {
    forget(pending)
    pending.connection.close()
  }

  private func forget(_ pending: PendingConnection) {
    waiting.removeAll { $0 === pending }
  }

  private func hear(_ pending: PendingConnection) {
    do {
      let isThere = pending.isLeaving ? try pending.drop() : try pending.read()
      guard isThere else { return drop(pending) }
      guard let hello = pending.hello, !pending.isLeaving else { return }
      pending.refusal = try Greeting(header: hello).refusal(token: config.token)
      pending.deadline = deadline(config.timeouts.handoverSeconds)
    } catch let error as FrameError {
      refuse(pending, error.code, error.message)
    } catch let error as OpError {
      refuse(pending, error.code, error.message)
    } catch {
      drop(pending)
    }
  }

  private func sendAwayLate() {
    let now = monotonicNanoseconds()
    for pending in waiting where pending.deadline <= now {
      if pending.isLeaving {
        drop(pending)
      } else if pending.hello == nil {
        refuse(pending, .timeout, "no hello within \(config.timeouts.helloSeconds) s")
      } else if placeIsTaken {
        refuse(pending, .busy, "another client is connected; wait for it to end, or stop it")
      }
    }
  }

  /// Admits the first client with the token if no other is served; answers the others with the reason.
  private func seat(_ serve: (Connection, JSON) -> Void) {
    for pending in waiting where !pending.isLeaving {
      guard let hello = pending.hello else { continue }
      if placeIsTaken { return }
      if let refusal = pending.refusal {
        refuse(pending, refusal.code, refusal.message)
      } else {
        lock.withLock { isTaken = true }
        forget(pending)
        serve(pending.connection, hello)
      }
    }
  }

  /// Answers with an error that closes, and waits briefly for the client to read it. Strangers are not reported
  /// while a client may be measuring.
  private func refuse(_ pending: PendingConnection, _ code: ErrorCode, _ message: String) {
    if !placeIsTaken { emit(.refused(code: code, message: message)) }
    pending.isLeaving = true
    pending.deadline = deadline(Connection.lingerSeconds)
    do {
      let id = pending.hello.flatMap(Request.id(of:))
      try pending.connection.sendLast(try Reply(error: code, message).frame(id: id))
    } catch {
      drop(pending)
    }
  }

  private func deadline(_ seconds: Double) -> UInt64 {
    monotonicNanoseconds() + UInt64(seconds * 1e9)
  }
}
