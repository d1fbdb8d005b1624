/// The version of PROTOCOL.md that this agent speaks.
package let protocolVersion = 1

/// A request that keeps to its schema. `heartbeatSeconds`: heartbeat interval requested by the client; 0: none.
package enum Request: Sendable, Equatable {
  case hello(protocol: Int, token: String)
  case have(sha256: String)
  case put(sha256: String)
  /// `asksPlacement`: whether the reply is to have it.
  case load(
    sha256: String, runtime: String, options: LoadOptions, asksPlacement: Bool, heartbeatSeconds: Int)
  case placement(handle: Int, heartbeatSeconds: Int)
  case unload(handle: Int)
  case check(handle: Int, inputs: [TensorSpec])
  case run(Schedule, heartbeatSeconds: Int)
  case state
  case bye

  /// The ops by their names on the wire.
  package enum Op: String, CaseIterable, Sendable {
    case hello, have, put, load, placement, unload, check, run, state, bye
  }

  /// The request in `header`, whose op is `op`. Throws OpError `bad_request` where it breaks its schema.
  package init(_ op: Op, header: JSON) throws {
    var fields = Fields(op: op.rawValue, header: header)
    _ = fields.take("op")
    _ = try fields.integer("id", in: 0...Limits.largestCount)
    try Self.checkPayload(of: op, &fields)
    switch op {
    case .hello:
      self = .hello(
        protocol: try fields.integer("protocol", in: 1...1_000_000),
        token: try fields.string("token", characters: 1...256))
    case .have: self = .have(sha256: try fields.sha256())
    case .put: self = .put(sha256: try fields.sha256())
    case .load:
      self = .load(
        sha256: try fields.sha256(), runtime: try fields.string("runtime", characters: 1...64),
        options: try Self.options(&fields), asksPlacement: try fields.bool("placement") ?? true,
        heartbeatSeconds: try Self.heartbeat(&fields))
    case .placement:
      self = .placement(
        handle: try fields.integer("handle", in: 0...Limits.largestCount),
        heartbeatSeconds: try Self.heartbeat(&fields))
    case .unload: self = .unload(handle: try fields.integer("handle", in: 0...Limits.largestCount))
    case .check:
      self = .check(
        handle: try fields.integer("handle", in: 0...Limits.largestCount), inputs: try Self.inputs(&fields))
    case .run:
      self = .run(
        try Schedule(&fields),
        heartbeatSeconds: try Self.heartbeat(&fields))
    case .state: self = .state
    case .bye: self = .bye
    }
    try fields.finish()
  }

  /// The id in `header`, repeated in the reply; nil where it is absent or not a valid id.
  package static func id(of header: JSON) -> Int? {
    guard case .integer(let id)? = header["id"], (0...Limits.largestCount).contains(id) else { return nil }
    return id
  }

  /// The reader of frames has checked the payload's type and its bounds.
  private static func checkPayload(of op: Op, _ fields: inout Fields) throws {
    let payload = fields.take("payload")
    switch op {
    case .check: break
    case .put:
      if payload == nil || payload == .integer(0) { throw fields.wrong("payload", "must be 1 byte to 1 GiB") }
    default:
      if let payload, payload != .integer(0) { throw fields.wrong("payload", "must be absent or 0") }
    }
  }

  private static func heartbeat(_ fields: inout Fields) throws -> Int {
    try fields.integer("heartbeat_s", in: 0...Limits.heartbeatSeconds, absent: 0)
  }

  private static func options(_ fields: inout Fields) throws -> LoadOptions {
    guard let value = fields.take("options") else { return [:] }
    guard case .object(let entries) = value else { throw fields.wrong("options", "must be an object") }
    guard entries.count <= Limits.options else {
      throw fields.wrong("options", "must have at most \(Limits.options) entries")
    }
    var options: LoadOptions = [:]
    for entry in entries {
      switch entry.value {
      case .bool(let value): options[entry.key] = .bool(value)
      case .integer(let value): options[entry.key] = .int(value)
      case .string(let value): options[entry.key] = .string(value)
      // No option has a range beyond 64 bits, so that the nearest bound is refused as the number itself would be.
      case .hugeInteger(let value): options[entry.key] = .int(value < 0 ? .min : .max)
      default: throw fields.wrong("options", "must have values that are bool, int or str")
      }
    }
    return options
  }

  private static func inputs(_ fields: inout Fields) throws -> [TensorSpec] {
    try fields.array("inputs", count: 0...Limits.tensors).map { input in
      guard case .object = input, case .string(let name)? = input["dtype"], let dtype = DType(rawValue: name)
      else {
        throw fields.wrong("inputs", "must name an element type each")
      }
      let shape = try fields.array(input["shape"], "inputs.shape", count: 0...Limits.rank)
      return TensorSpec(
        dtype: dtype, shape: try shape.map { try fields.integer($0, "inputs.shape", in: 0...Int(Int32.max)) })
    }
  }
}

extension Schedule {
  /// Reads the fields of `run`; throws OpError `bad_request` where they break its schema or its rules.
  fileprivate init(_ fields: inout Fields) throws {
    let handles = try fields.array("handles", count: 1...Limits.handles)
      .map { try fields.integer($0, "handles", in: 0...Limits.largestCount) }
    let rounds = try fields.array("order", count: 1...Limits.visits)
    var visits: Int?
    var order: [Int] = []
    for round in rounds {
      let row = try fields.array(round, "order", count: 1...Limits.visits)
      guard row.count == visits ?? row.count else {
        throw fields.wrong("order", "must have the same number of visits in every round")
      }
      visits = row.count
      guard rounds.count * row.count <= Limits.visits else {
        throw fields.wrong(
          "order", "has \(rounds.count * row.count) visits, over the limit of \(Limits.visits)")
      }
      for index in row { order.append(try fields.integer(index, "order", in: 0...handles.count - 1)) }
    }
    self.init(
      handles: handles, order: order, rounds: rounds.count,
      warmup: try fields.integer("warmup", in: 0...Limits.warmup),
      warmupMilliseconds: try fields.integer("warmup_ms", in: 0...Limits.warmupMilliseconds, absent: 0),
      paceMicroseconds: try fields.integer("pace_us", in: 0...Limits.paceMicroseconds, absent: 0),
      keepWarm: try fields.bool("keep_warm"))
  }
}
