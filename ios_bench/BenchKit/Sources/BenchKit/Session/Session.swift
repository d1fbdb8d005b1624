import Foundation

/// One client's connection: reads requests, answers them, and frees all it loaded at the end.
///
/// It runs on a thread of its own, on which it blocks, and on which models are loaded and timed.
package actor Session {
  let configuration: AgentConfiguration
  let connection: Connection
  var models = LoadedModels()
  private let executor: ThreadExecutor
  private let emit: @Sendable (AgentEvent) -> Void
  private var greeted = false
  private var leaving = false

  package init(
    _ configuration: AgentConfiguration, connection: Connection, executor: ThreadExecutor,
    emit: @escaping @Sendable (AgentEvent) -> Void
  ) {
    self.configuration = configuration
    self.connection = connection
    self.executor = executor
    self.emit = emit
  }

  package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  /// Answers requests until the client leaves, vanishes or breaks the protocol; all is freed then.
  package func serve() async {
    emit(.connected)
    do {
      while !leaving {
        try waitForFrame()
        guard let frame = try Frame.read(from: connection) else { break }
        try await answer(frame)
      }
    } catch let error as FrameError {
      replyLast(nil, error.code, error.message)
    } catch is Connection.TimedOut {
      replyLast(nil, .timeout, "a frame stood still for \(configuration.timeouts.frameSeconds) s")
    } catch {
      // The client is gone: nobody is left to tell.
    }
    models.closeAll()
    connection.closeAfterAnswer()
    emit(.disconnected)
  }

  private func waitForFrame() throws {
    let seconds = configuration.timeouts.helloSeconds
    guard try connection.waitForInput(seconds: greeted ? nil : seconds) else {
      throw FrameError(.timeout, "no hello within \(seconds) s")
    }
  }

  private func answer(_ frame: Frame) async throws {
    let id = Request.id(of: frame.header)
    var reply: Reply
    do {
      reply = try await perform(try parse(frame.header), frame.payload)
    } catch let error as OpError where error.closes {
      leaving = true
      replyLast(id, error.code, error.message)
      return
    } catch let error as OpError {
      reply = refuse(error.code, error.message)
    } catch let error where error is FrameError || error is Connection.TimedOut || error is Connection.Lost {
      throw error
    } catch {
      FileHandle.standardError.write(Data("internal error: \(error)\n".utf8))
      reply = refuse(.internal, "the agent failed: \(error.localizedDescription)")
    }
    try frame.payload.drain()
    try connection.write(try reply.frame(id: id))
  }

  private func parse(_ header: JSON) throws -> Request {
    let name: String? = if case .string(let text)? = header["op"] { text } else { nil }
    let op = name.flatMap(Request.Op.init)
    guard greeted || op == .hello else { throw OpError(.unauthorized, "say hello first", closes: true) }
    guard let op else {
      let known = Request.Op.allCases.map(\.rawValue).joined(separator: ", ")
      throw OpError(.unknownOp, "unknown op \((name ?? "").prefix(64).debugDescription); known: \(known)")
    }
    do {
      return try Request(op, header: header)
    } catch let error as OpError {
      throw OpError(error.code, error.message, closes: !greeted)
    }
  }

  private func perform(_ request: Request, _ payload: Payload) async throws -> Reply {
    switch request {
    case .hello(let version, let token): return try hello(version, token)
    case .have(let sha256): return Reply(["present": .bool(configuration.store.has(sha256))])
    case .put(let sha256):
      emit(.working("receiving model \(sha256.prefix(12))"))
      try configuration.store.put(sha256, payload, inUse: models.hashes)
      return Reply(["bytes": .integer(payload.bytes)])
    case .load(let sha256, let runtime, let options):
      emit(.working("loading model \(sha256.prefix(12)) with \(runtime)"))
      return try await load(sha256, runtime, options)
    case .unload(let handle):
      try models.close(handle)
      return Reply()
    case .check(let handle, let inputs): return try check(handle, inputs, payload)
    case .run(let schedule):
      emit(.working("timing \(schedule.handles.count) models, \(schedule.order.count) visits"))
      let (reply, summary) = try await run(schedule)
      emit(.measured(summary))
      return reply
    case .state: return Reply(["state": try await state()])
    case .bye:
      leaving = true
      return Reply()
    }
  }

  private func hello(_ version: Int, _ token: String) throws -> Reply {
    guard isEqualInConstantTime(token, configuration.token) else {
      throw OpError(.unauthorized, "wrong token; take the one that the agent was started with", closes: true)
    }
    guard version == protocolVersion else {
      throw OpError(
        .protocolVersion,
        "this agent speaks protocol \(protocolVersion), not \(version); "
          + "install the same version of blocktime on both sides", closes: true)
    }
    greeted = true
    return Reply([
      "protocol": .integer(protocolVersion),
      "agent": configuration.agent.json,
      "device": configuration.probe.describe().json,
      "runtimes": .object(configuration.runtimes.map { .init($0.name, $0.describe().json) }),
    ])
  }

  private func refuse(_ code: ErrorCode, _ message: String) -> Reply {
    emit(.refused(code: code, message: message))
    return Reply(error: code, message)
  }

  /// The error that ends the connection; a client that is gone does not hear it.
  private func replyLast(_ id: Int?, _ code: ErrorCode, _ message: String) {
    try? connection.write(try refuse(code, message).frame(id: id))
  }
}

/// Compares in a time that depends on the length of `candidate` alone.
func isEqualInConstantTime(_ candidate: String, _ secret: String) -> Bool {
  let (candidate, secret) = (Array(candidate.utf8), Array(secret.utf8))
  var difference = candidate.count ^ secret.count
  for (index, byte) in candidate.enumerated() { difference |= Int(byte ^ secret[index % secret.count]) }
  return difference == 0
}
