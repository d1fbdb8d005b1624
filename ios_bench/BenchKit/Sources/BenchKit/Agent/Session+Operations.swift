import Foundation

/// Loading, checking and timing.
extension Session {
  func load(
    _ sha256: String, _ name: String, _ options: LoadOptions, asksPlacement: Bool
  ) async throws -> Reply {
    guard let runtime = config.runtimes.first(where: { $0.name == name }) else {
      let known = config.runtimes.map(\.name).joined(separator: ", ")
      throw OpError(.unknownRuntime, "no runtime \(name.debugDescription); this agent has: \(known)")
    }
    guard !models.isFull else {
      throw OpError(.tooManyHandles, "\(Limits.handles) models are loaded; unload some first")
    }
    let stored = try config.store.model(sha256)
    let loaded = try await runtime.load(stored, options: options, session: self)
    let placement = asksPlacement ? await loaded.readPlacement() : nil
    let handle = models.add(
      .init(sha256: sha256, runtime: name, model: loaded.model, readPlacement: loaded.readPlacement))
    var reply = Reply([
      "handle": .integer(handle),
      "load_ns": .integer(Int(clamping: loaded.loadNanoseconds)),
      "options": .object(loaded.options.sorted { $0.key < $1.key }.map { .init($0.key, $0.value.json) }),
      "inputs": .array(loaded.model.inputs.map(\.json)),
      "outputs": .array(loaded.model.outputs.map(\.json)),
      "delegates": loaded.delegates.map { .array($0.map(\.json)) } ?? .null,
      "placement": placement?.json ?? .null,
    ])
    if let nanoseconds = loaded.compileNanoseconds {
      reply.fields.append(.init("compile_ns", .integer(Int(clamping: nanoseconds))))
    }
    if let cached = loaded.cached { reply.fields.append(.init("cached", .bool(cached))) }
    if let buffers = loaded.inputBuffers {
      reply.fields.append(.init("input_buffers", .string(buffers.rawValue)))
    }
    return reply
  }

  func check(_ handle: Int, _ inputs: [TensorSpec], _ payload: Payload) throws -> Reply {
    let model = try models.entry(handle).model
    guard inputs == model.inputs, payload.bytes == inputs.reduce(0, { $0 + ($1.bytes ?? 0) }) else {
      let wanted = model.inputs.map(\.description).joined(separator: ", ")
      throw OpError(.badInput, "the model takes \(wanted); the inputs or their bytes differ from that")
    }
    let outputs = try execute(model, tensors(inputs, from: try payload.read()))
    return Reply(["outputs": .array(outputs.map(\.spec.json))], payload: outputs.flatMap(\.bytes))
  }

  func run(_ schedule: Schedule, id: Int?, heartbeatSeconds: Int) async throws -> (Reply, RunResult) {
    let entries = try schedule.handles.map(models.entry)
    let before = await config.probe.read()
    let caveatsBefore = try Readiness.require(before, allowed: config.allowed)
    let every = heartbeatSeconds > 0 ? UInt64(heartbeatSeconds) * 1_000_000_000 : .max
    let heartbeat = RunHeartbeat(clientIsThere: connection.peerIsThere, everyNanoseconds: every) {
      [connection] in
      try connection.write(try Reply(["running": .integer($0)]).frame(id: id))
    }
    let keepWarm = schedule.keepWarm ?? config.keepWarm
    let warmUp = schedule.warmupMilliseconds > 0 ? AdaptiveWarmUp(schedule) : nil
    let samples = try TimingLoop.run(
      schedule, entries.map(\.model), keepWarm: keepWarm, pieceNanoseconds: every, warmUp: warmUp,
      goOn: heartbeat.goOn)
    let after = await config.probe.read()
    let caveatsAfter = try Readiness.require(after, since: before, allowed: config.allowed)
    var reply = Reply(
      [
        "rounds": .integer(schedule.rounds),
        "visits": .integer(schedule.visits),
        "state_before": before.state.json(in: sessionState(caveatsBefore, keepWarm: keepWarm)),
        "state_after": after.state.json(in: sessionState(caveatsAfter, keepWarm: keepWarm)),
      ],
      payload: samples.flatMap { withUnsafeBytes(of: $0.bigEndian, Array.init) })
    if let warmUp { reply.fields.append(.init("warmed", warmUp.json)) }
    return (reply, RunResult(schedule, entries, samples))
  }

  func state() async throws -> JSON {
    let reading = await config.probe.read()
    let caveats = Readiness.reasons(now: reading).filter(config.allowed.contains)
    return reading.state.json(in: sessionState(caveats, keepWarm: config.keepWarm))
  }

  private func sessionState(_ caveats: [Caveat], keepWarm: Bool) -> SessionState {
    SessionState(qos: currentQualityOfService(), keepWarm: keepWarm, caveats: caveats)
  }

  private func execute(_ model: any Model, _ tensors: [Tensor]) throws -> [Tensor] {
    do {
      try model.prepare(tensors)
      try model.setInputs()
      try model.execute()
      return try model.readOutputs()
    } catch let error as OpError {
      throw error
    } catch {
      throw OpError(.runFailed, "the runtime failed: \(error.localizedDescription)")
    }
  }

  /// Cuts `bytes`, which are as many as `specs` need, into tensors.
  private func tensors(_ specs: [TensorSpec], from bytes: [UInt8]) -> [Tensor] {
    var start = 0
    return specs.map { spec in
      let end = start + (spec.bytes ?? 0)
      defer { start = end }
      return Tensor(spec: spec, bytes: Array(bytes[start..<end]))
    }
  }
}

extension AdaptiveWarmUp {
  fileprivate convenience init(_ schedule: Schedule) {
    self.init(
      models: schedule.handles.count, boundNanoseconds: UInt64(schedule.warmupMilliseconds) * 1_000_000)
  }
}

extension RunResult {
  fileprivate init(_ schedule: Schedule, _ entries: [LoadedModels.Entry], _ samples: [UInt64]) {
    var visits = [[UInt64]](repeating: [], count: entries.count)
    for (index, sample) in zip(schedule.order, samples) { visits[index].append(sample) }
    self.init(
      rounds: schedule.rounds,
      entries: zip(entries, visits).map { entry, samples in
        Entry(
          sha256: entry.sha256, runtime: entry.runtime,
          medianNanoseconds: samples.isEmpty ? 0 : samples.sorted()[samples.count / 2], visits: samples.count)
      })
  }
}
