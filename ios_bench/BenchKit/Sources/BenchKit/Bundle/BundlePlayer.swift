import Foundation

/// The device did not get ready, the agent was lost, or there is no room.
struct BundleStopped: LocalizedError {
  let errorDescription: String?

  init(_ message: String) { errorDescription = message }
}

/// Runs the batches of a bundle that its journal does not have yet, as PROTOCOL.md, "Bundles", says. Blocks its thread.
struct BundlePlayer {
  /// Errors of a load that say that the model will never run here.
  private static let refused = ["bad_model", "run_failed"]

  let bundle: BundleFile
  let journal: BundleJournal
  var progress: BundleProgress
  let agent: Loopback
  let tell: @Sendable (String) -> Void

  private var script: Script { bundle.script }
  private var rules: Script.Rules { bundle.script.rules }

  /// Runs what is left.
  mutating func run(token: String) throws {
    let hello = try agent.demand([
      "op": .string("hello"), "protocol": .integer(protocolVersion), "token": .string(token),
    ])
    guard hello["runtimes"]?[script.runtime] != nil else {
      throw BundleError(
        "\(bundle.path) is for \(bundle.deviceKind): this agent has no runtime \(script.runtime)")
    }
    if progress.isFinished { return }
    if let greeting = progress.greeting, greeting != hello {
      throw BundleError("the journal was begun with another version of agent or system; give another")
    }
    if journal.isEmpty {
      try write(
        "bundle",
        [
          "bundle": .string(bundle.digest),
          "manifest": .string(String(decoding: bundle.manifestText, as: UTF8.self)),
          "plan": .string(String(decoding: bundle.plan, as: UTF8.self)),
        ])
    }
    try write("start", ["hello": hello])
    var ended = "passes"
    for (number, batch) in script.batches.enumerated() {
      if let ending = ending(before: number) {
        ended = ending
        break
      }
      while progress.wants(number, attempts: rules.attempts) {
        tell(place(of: number))
        try run(number, batch)
      }
    }
    try write("done", ["ended": .string(ended)])
  }

  /// Why the pass that a batch is the first of is not made; nil where it is, or was begun already.
  private func ending(before number: Int) -> String? {
    let passes = script.batches[number].passIndex
    guard number > 0, passes != script.batches[number - 1].passIndex, progress.begun[number] == nil else {
      return nil
    }
    let models = Set(script.batches.flatMap { $0.slots.dropFirst(2) }).subtracting(progress.failed)
    return script.stop?.ending(
      after: passes, loads: progress.loads, models: models, worked: progress.worked)
  }

  private func place(of number: Int) -> String {
    let passes = (script.batches.last?.passIndex ?? 0) + 1
    let fewest = script.stop.map { $0.minPasses < passes ? "\($0.minPasses) to " : "" } ?? ""
    return "batch \(number + 1) of \(script.batches.count), "
      + "pass \(script.batches[number].passIndex + 1) of \(fewest)\(passes), "
      + "\(Int((progress.worked / 60).rounded())) min so far"
  }

  private mutating func write(_ kind: String, _ fields: KeyValuePairs<String, JSON>) throws {
    let record = JSON.object(
      [JSON.Field("kind", .string(kind))] + fields.map { JSON.Field($0.key, $0.value) })
    try journal.append(record)
    progress.add(record)
  }

  private mutating func run(_ number: Int, _ batch: Script.Batch) throws {
    try write(
      "batch",
      ["batch": .integer(number), "pass_index": .integer(batch.passIndex), "group": .integer(batch.group)])
    let start = ProcessInfo.processInfo.systemUptime
    try coolDown()
    var handles: [Int: JSON] = [:]
    var ratios = BatchRatios()
    for slot in batch.loading where !progress.failed.contains(batch.slots[slot]) {
      handles[slot] = try load(slot, batch)
    }
    let hasReference = handles[0] != nil && handles[1] != nil
    let ended = hasReference ? try runRounds(batch, handles, &ratios) : "the reference can't be loaded"
    for handle in handles.values { _ = try agent.ask(["op": .string("unload"), "handle": handle]) }
    let again = ended == "hot" && progress.begun[number, default: 0] < rules.attempts
    let logs = ended == "done" ? ratios.locations.map { JSON.Field(batch.slots[$0], .number($1)) } : []
    try write(
      "end",
      [
        "batch": .integer(number), "ended": .string(ended), "again": .bool(again),
        "worked_s": .number(ProcessInfo.processInfo.systemUptime - start), "logs": .object(logs),
      ])
  }

  /// The handle; nil where the model can't be loaded.
  private mutating func load(_ slot: Int, _ batch: Script.Batch) throws -> JSON? {
    let sha256 = batch.slots[slot]
    let deaths = progress.deaths[sha256, default: 0]
    if deaths >= rules.deaths {
      try fail(sha256, "the agent was ended \(deaths) times while loading it")
      return nil
    }
    try store(sha256)
    try write("loading", ["sha256": .string(sha256)])
    let request: [JSON.Field] =
      [.init("op", .string("load")), .init("sha256", .string(sha256))] + script.load
      + [.init("placement", .bool(batch.placement))]
    let reply = try agent.ask(request).header
    try write("load", ["slot": .integer(slot), "sha256": .string(sha256), "reply": reply])
    if let error = reply["error"], Self.refused.contains(error["code"]?.text ?? "") {
      try fail(sha256, error.reason)
    }
    return reply["handle"]
  }

  private mutating func fail(_ sha256: String, _ reason: String) throws {
    try write("failed", ["sha256": .string(sha256), "reason": .string(reason)])
  }

  private func store(_ sha256: String) throws {
    let have = try agent.demand(["op": .string("have"), "sha256": .string(sha256)])
    guard have["present"]?.bool != true, let place = bundle.model(sha256) else { return }
    let request: [JSON.Field] = [.init("op", .string("put")), .init("sha256", .string(sha256))]
    guard let error = try agent.ask(request, payload: place, of: bundle.path).header["error"] else { return }
    let model = "the model \(sha256.prefix(12))"
    if error["code"]?.text == "hash_mismatch" {
      throw BundleError("\(bundle.path): \(model) is damaged; copy the bundle again")
    }
    throw BundleStopped("\(model) can't be stored: \(error.reason)")
  }

  /// Runs rounds of what was loaded until they are enough; how that ended: `done`, `hot`, or an error.
  private mutating func runRounds(
    _ batch: Script.Batch, _ handles: [Int: JSON], _ ratios: inout BatchRatios
  ) throws -> String {
    let loaded = handles.keys.sorted()
    let places = Dictionary(uniqueKeysWithValues: loaded.enumerated().map { ($1, $0) })
    for (index, order) in batch.orders.enumerated() {
      let rounds = order.map { $0.filter { handles[$0] != nil } }
      let schedule = rounds.map { $0.compactMap { places[$0] } }
      let fields = script.run.map { index > 0 && $0.key == "warmup" ? .init("warmup", .integer(0)) : $0 }
      let request: [JSON.Field] =
        [
          .init("op", .string("run")), .init("handles", .array(loaded.compactMap { handles[$0] })),
          .init("order", Self.json(schedule)),
        ] + fields
      let (reply, samples) = try askWhenReady(request)
      if let error = reply["error"] { return error.reason }
      try write(
        "run",
        [
          "order": Self.json(rounds), "reply": reply.without("payload"),
          "samples": .string(Data(samples).base64EncodedString()),
        ])
      if isHot(reply["state_before"]) || isHot(reply["state_after"]) { return "hot" }
      ratios.add(rounds, samples)
      tell("\(ratios.rounds) rounds, noise \(String(format: "%.2f", 100 * ratios.noise)) %")
      if ratios.areEnough(script.stop) { break }
    }
    return "done"
  }

  private static func json(_ rounds: [[Int]]) -> JSON { .array(rounds.map { .array($0.map(JSON.integer)) }) }

  private func askWhenReady(_ request: [JSON.Field]) throws -> (header: JSON, payload: [UInt8]) {
    let deadline = Date(timeIntervalSinceNow: rules.wait)
    while true {
      let answer = try agent.ask(request)
      guard let error = answer.header["error"], error["code"]?.text == "not_ready" else { return answer }
      let message = error["message"]?.text ?? ""
      if Date() > deadline { throw BundleStopped("\(message); run the bundle again, it goes on") }
      tell("waiting, \(message)")
      Thread.sleep(forTimeInterval: rules.poll)
    }
  }

  private func coolDown() throws {
    let deadline = Date(timeIntervalSinceNow: rules.cool)
    while Date() < deadline {
      let state = try agent.demand(["op": .string("state")])["state"] ?? .null
      let isNominal = ["nominal", nil].contains(state["thermal_state"]?.text)
      if isNominal, (state["thermal_headroom"]?.double ?? 0) < rules.coolHeadroom { return }
      tell("letting the device cool before the next batch")
      Thread.sleep(forTimeInterval: rules.poll)
    }
  }

  private func isHot(_ state: JSON?) -> Bool {
    let isWarm = ["serious", "critical"].contains(state?["thermal_state"]?.text)
    let isOver = (state?["thermal_headroom"]?.double ?? 0) >= rules.hotHeadroom
    let isIgnored = state?["caveats"]?.items?.contains(.string("throttled")) ?? false
    return (isWarm || isOver) && !isIgnored
  }
}

extension JSON {
  /// An error in one line.
  fileprivate var reason: String { "\(self["code"]?.text ?? ""): \(self["message"]?.text ?? "")" }
}
