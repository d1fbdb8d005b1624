import Foundation

/// An agent that listens on the loopback and serves one client at a time.
public actor AgentServer {
  /// What the agent does; meant for one reader. The oldest are dropped where nobody reads.
  public nonisolated let events: AsyncStream<AgentEvent>

  private let config: AgentConfig
  private let continuation: AsyncStream<AgentEvent>.Continuation
  private var acceptor: Acceptor?

  public init(_ config: AgentConfig) {
    self.config = config
    (events, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(256))
  }

  /// Begins to listen and returns the port. Throws ListenError; does nothing where it listens already.
  @discardableResult
  public func start() throws -> UInt16 {
    if let acceptor, acceptor.isListening { return acceptor.port }
    let started = try Acceptor(config) { [continuation] in continuation.yield($0) }
    acceptor = started
    continuation.yield(.listening(port: started.port))
    return started.port
  }

  /// Cuts off the client, frees what it loaded, and listens no longer. It may be started again.
  public func stop() async {
    guard let stopping = acceptor else { return }
    acceptor = nil
    await stopping.stop()
  }
}
