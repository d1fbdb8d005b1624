import Foundation

/// Where those who connect wait, beside each other, until one has shown the token and the place is free.
///
/// One thread for all, which only sleeps unless somebody calls: it takes no time from what is timed else.
final class Reception: @unchecked Sendable {
  private let config: AgentConfig
  private let listener: Listener
  private let emit: @Sendable (AgentEvent) -> Void
  private let wakeUp: WakeUp
  private var visitors: [Visitor] = []
  private let lock = NSLock()
  private var isTaken = false
  private var isStopped = false

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
    defer { visitors = [] }
    while !lock.withLock({ isStopped }) {
      try waitAndHear()
      sendAwayLate()
      seat(serve)
    }
  }

  private var placeIsTaken: Bool { lock.withLock { isTaken } }

  private func waitAndHear() throws {
    // A visitor that waits for the place is not polled: poll ignores negative descriptors.
    let heard = visitors
    let descriptors =
      [listener.socket, wakeUp.descriptor] + heard.map { $0.isHeard ? $0.connection.socket : -1 }
    var polled = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    let milliseconds = self.milliseconds()
    try retrying("poll") { poll(&polled, nfds_t(polled.count), milliseconds) }
    for (visitor, state) in zip(heard, polled.dropFirst(2)) where state.revents != 0 { hear(visitor) }
    if polled[1].revents != 0 { wakeUp.clear() }
    if polled[0].revents != 0 { try accept() }
  }

  /// Until the next deadline; -1 where there is none.
  private func milliseconds() -> Int32 {
    guard let next = visitors.map(\.deadline).min() else { return -1 }
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
    if visitors.count >= Limits.waiting { dropOldest() }
    let connection = Connection(socket: socket, timeoutSeconds: config.timeouts.frameSeconds)
    visitors.append(Visitor(connection, deadline: deadline(config.timeouts.helloSeconds)))
  }

  /// Drops who has waited longest, those who hold the token last; false where nobody waits.
  @discardableResult
  private func dropOldest() -> Bool {
    guard let oldest = visitors.first(where: { !$0.holdsToken }) ?? visitors.first else { return false }
    drop(oldest)
    return true
  }

  private func drop(_ visitor: Visitor) {
    forget(visitor)
    visitor.connection.close()
  }

  private func forget(_ visitor: Visitor) {
    visitors.removeAll { $0 === visitor }
  }

  private func hear(_ visitor: Visitor) {
    do {
      let isThere = visitor.isLeaving ? try visitor.drop() : try visitor.read()
      guard isThere else { return drop(visitor) }
      guard let hello = visitor.hello, !visitor.isLeaving else { return }
      visitor.refusal = try Greeting(header: hello).refusal(token: config.token)
      visitor.deadline = deadline(config.timeouts.handoverSeconds)
    } catch let error as FrameError {
      refuse(visitor, error.code, error.message)
    } catch let error as OpError {
      refuse(visitor, error.code, error.message)
    } catch {
      drop(visitor)
    }
  }

  private func sendAwayLate() {
    let now = monotonicNanoseconds()
    for visitor in visitors where visitor.deadline <= now {
      if visitor.isLeaving {
        drop(visitor)
      } else if visitor.hello == nil {
        refuse(visitor, .timeout, "no hello within \(config.timeouts.helloSeconds) s")
      } else if placeIsTaken {
        refuse(visitor, .busy, "another client is connected; wait for it to end, or stop it")
      }
    }
  }

  /// Gives the place, where it is free, to the first who holds the token; tells others why not to them.
  private func seat(_ serve: (Connection, JSON) -> Void) {
    for visitor in visitors where !visitor.isLeaving {
      guard let hello = visitor.hello else { continue }
      if placeIsTaken { return }
      if let refusal = visitor.refusal {
        refuse(visitor, refusal.code, refusal.message)
      } else {
        lock.withLock { isTaken = true }
        forget(visitor)
        serve(visitor.connection, hello)
      }
    }
  }

  /// Answers with an error that closes, and waits a little for the visitor to have read it. Nothing is told of strangers
  /// while a client may be measuring.
  private func refuse(_ visitor: Visitor, _ code: ErrorCode, _ message: String) {
    if !placeIsTaken { emit(.refused(code: code, message: message)) }
    visitor.isLeaving = true
    visitor.deadline = deadline(Connection.lingerSeconds)
    do {
      let id = visitor.hello.flatMap(Request.id(of:))
      try visitor.connection.sendLast(try Reply(error: code, message).frame(id: id))
    } catch {
      drop(visitor)
    }
  }

  private func deadline(_ seconds: Double) -> UInt64 {
    monotonicNanoseconds() + UInt64(seconds * 1e9)
  }
}
