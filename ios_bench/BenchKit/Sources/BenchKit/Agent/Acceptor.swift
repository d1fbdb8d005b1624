import Foundation

/// Receives on a thread of its own and hands one client at a time to a session.
final class Acceptor: @unchecked Sendable {
  var port: UInt16 { listener.port }

  private let config: AgentConfig
  private let listener: Listener
  private let executor: ThreadExecutor
  private let emit: @Sendable (AgentEvent) -> Void
  private let reception: ConnectionQueue
  private let lock = NSLock()
  private var client: (connection: Connection, session: Task<Void, Never>)?
  private var hasEnded = false
  private let finished = AsyncStream<Never>.makeStream()

  /// Listens at once. Throws ListenError.
  init(_ config: AgentConfig, emit: @escaping @Sendable (AgentEvent) -> Void) throws {
    self.config = config
    self.emit = emit
    listener = try Listener(port: config.port)
    do {
      reception = try ConnectionQueue(config, listener, emit: emit)
    } catch let error as PosixError {
      throw ListenError(errorDescription: "the agent can't listen (\(error.localizedDescription))")
    }
    executor = ThreadExecutor(name: "timing")
    let thread = Thread { [self] in receive() }
    thread.name = "reception"
    thread.start()
  }

  /// Whether clients are accepted; no longer after `stop`, or where the system took the socket away.
  var isListening: Bool { lock.withLock { !hasEnded } }

  /// Returns once nobody is served, all is freed, and nothing listens.
  func stop() async {
    reception.stop()
    lock.withLock { client?.connection.cutOff() }
    for await _ in finished.stream {}
  }

  private func receive() {
    var reason: String?
    do {
      try reception.receive(serve)
    } catch {
      reason = error.localizedDescription
    }
    end(reason)
  }

  private func serve(_ connection: Connection, _ hello: JSON) {
    let session = Session(config, connection: connection, executor: executor, emit: emit)
    let task = Task {
      await session.serve(hello: hello)
      reception.freePlace()
    }
    lock.withLock { client = (connection, task) }
  }

  /// Frees the port, cuts off a client that came while the acceptor was being stopped, and waits for the session.
  private func end(_ reason: String?) {
    listener.close()
    let last = lock.withLock {
      hasEnded = true
      return client
    }
    last?.connection.cutOff()
    Task {
      await last?.session.value
      executor.stop()
      emit(.stopped(reason: reason))
      finished.continuation.finish()
    }
  }
}
