import Foundation

/// One client's connection after its hello: reads requests, answers them, and frees all it loaded at the end.
///
/// It runs on a thread of its own, on which it blocks, and on which models are loaded and timed.
package actor Session {
  let config: AgentConfig
  let connection: Connection
  var models = LoadedModels()
  private let executor: ThreadExecutor
  private let emit: @Sendable (AgentEvent) -> Void
  private var leaving = false

  package init(
    _ config: AgentConfig, connection: Connection, executor: ThreadExecutor,
    emit: @escaping @Sendable (AgentEvent) -> Void
  ) {
    self.config = config
    self.connection = connection
    self.executor = executor
    self.emit = emit
  }

  package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  /// Answers the hello, then requests until the client leaves, vanishes or breaks the protocol; all is freed then.
  package func serve(hello: JSON) async {
    emit(.connected)
    do {
      try await answer(Frame(header: hello, on: connection))
      while !leaving {
        _ = try connection.waitForInput(seconds: nil)
        guard let frame = try Frame.read(from: connection) else { break }
        try await answer(frame)
      }
    } catch let error as FrameError {
      replyLast(nil, error.code, error.message)
    } catch is Connection.TimedOut {
      replyLast(nil, .timeout, "a frame stood still for \(config.timeouts.frameSeconds) s")
    } catch {
      // The client is gone: there is nobody to answer.
    }
    models.closeAll()
    connection.closeAfterAnswer()
    emit(.disconnected)
  }

  private func answer(_ frame: Frame) async throws {
    let id = Request.id(of: frame.header)
    var reply: Reply
    do {
      reply = try await perform(try parse(frame.header), frame.payload, id: id)
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
    guard let op else {
      let known = Request.Op.allCases.map(\.rawValue).joined(separator: ", ")
      throw OpError(.unknownOp, "unknown op \((name ?? "").prefix(64).debugDescription); known: \(known)")
    }
    return try Request(op, header: header)
  }

  private func perform(_ request: Request, _ payload: Payload, id: Int?) async throws -> Reply {
    switch request {
    case .hello(let version, let token): return try hello(version, token)
    case .have(let sha256): return Reply(["present": .bool(config.store.has(sha256))])
    case .put(let sha256):
      emit(.working("receiving model \(sha256.prefix(12))"))
      try config.store.put(sha256, payload, inUse: models.hashes)
      return Reply(["bytes": .integer(payload.bytes)])
    case .load(let sha256, let runtime, let options, let asksPlacement, let heartbeatSeconds):
      emit(.working("loading model \(sha256.prefix(12)) with \(runtime), then timing"))
      let heartbeat = heartbeat(id: id, everySeconds: heartbeatSeconds)
      defer { heartbeat.end() }
      return try await load(sha256, runtime, options, asksPlacement: asksPlacement)
    case .placement(let handle, let heartbeatSeconds):
      let entry = try models.entry(handle)
      let heartbeat = heartbeat(id: id, everySeconds: heartbeatSeconds)
      defer { heartbeat.end() }
      return Reply(["placement": await entry.readPlacement()?.json ?? .null])
    case .unload(let handle):
      try models.close(handle)
      return Reply()
    case .check(let handle, let inputs): return try check(handle, inputs, payload)
    case .run(let schedule, let heartbeatSeconds):
      let (reply, result) = try await run(schedule, id: id, heartbeatSeconds: heartbeatSeconds)
      emit(.measured(result))
      return reply
    case .state: return Reply(["state": try await state()])
    case .bye:
      leaving = true
      return Reply()
    }
  }

  private func hello(_ version: Int, _ token: String) throws -> Reply {
    if let refusal = Greeting(version: version, token: token).refusal(token: config.token) { throw refusal }
    return Reply([
      "protocol": .integer(protocolVersion),
      "agent": config.agent.json,
      "device": config.probe.describe().json,
      "runtimes": .object(config.runtimes.map { .init($0.name, $0.describe().json) }),
      "heartbeat": .bool(true),
      "timed_warmup": .bool(true),
      "heartbeat_ops": .array([.string("load"), .string("placement")]),
      "pace": .bool(true),
      "keep_warm": .bool(true),
    ])
  }

  private nonisolated func heartbeat(id: Int?, everySeconds seconds: Int) -> Heartbeat {
    Heartbeat(everySeconds: Double(seconds)) { [connection] in
      try connection.write(try Reply(["running": .integer(0)]).frame(id: id))
    }
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
