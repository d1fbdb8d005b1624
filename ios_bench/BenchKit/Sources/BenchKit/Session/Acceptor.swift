import Foundation

/// Accepts clients on a thread of its own and hands one at a time to a session; others are refused.
///
/// The accepting thread only sleeps while a client is served, so that it takes no time from what is timed unless
/// a second client calls.
final class Acceptor: @unchecked Sendable {
  var port: UInt16 { listener.port }

  private let configuration: AgentConfiguration
  private let listener: Listener
  private let executor: ThreadExecutor
  private let emit: @Sendable (AgentEvent) -> Void
  private let place = DispatchSemaphore(value: 1)
  private let lock = NSLock()
  private var client: (connection: Connection, session: Task<Void, Never>)?
  private var hasEnded = false
  private let finished = AsyncStream<Never>.makeStream()

  /// Listens at once. Throws ListenError.
  init(_ configuration: AgentConfiguration, emit: @escaping @Sendable (AgentEvent) -> Void) throws {
    self.configuration = configuration
    self.emit = emit
    listener = try Listener(port: configuration.port)
    executor = ThreadExecutor(name: "timing")
    let thread = Thread { [self] in acceptClients() }
    thread.name = "accept"
    thread.start()
  }

  /// Whether clients are accepted; no longer after `stop`, or where the system took the socket away.
  var isListening: Bool { lock.withLock { !hasEnded } }

  /// Returns once nobody is served, all is freed, and nothing listens.
  func stop() async {
    listener.stop()
    lock.withLock { client?.connection.cutOff() }
    for await _ in finished.stream {}
  }

  private func acceptClients() {
    var reason: String?
    do {
      while let socket = try listener.accept() {
        let connection = Connection(socket: socket, timeoutSeconds: configuration.timeouts.frameSeconds)
        if place.wait(timeout: .now() + configuration.timeouts.placeSeconds) == .success {
          serve(connection)
        } else {
          refuse(connection)
        }
      }
    } catch {
      reason = error.localizedDescription
    }
    end(reason)
  }

  private func serve(_ connection: Connection) {
    let session = Session(configuration, connection: connection, executor: executor, emit: emit)
    let task = Task {
      await session.serve()
      place.signal()
    }
    lock.withLock { client = (connection, task) }
  }

  private func refuse(_ connection: Connection) {
    let message = "another client is connected; wait for it to end, or stop it"
    try? connection.write(try Reply(error: .busy, message).frame(id: nil))
    connection.closeAfterAnswer()
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
