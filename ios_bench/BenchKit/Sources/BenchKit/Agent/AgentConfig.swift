/// The agent's name and version in `hello`.
public struct AgentInfo: Sendable, Equatable {
  public let name: String
  /// Changes with any source that decides what is measured, or how.
  public let version: String

  public init(name: String, version: String) {
    self.name = name
    self.version = version
  }

  var json: JSON { .object(["name": .string(name), "version": .string(version)]) }
}

/// What an agent serves, and to whom.
public struct AgentConfig: Sendable {
  public var agent: AgentInfo
  /// What a client must know; not empty.
  public var token: String
  /// Port on the loopback; 0 takes any free one.
  public var port: UInt16
  public var store: ModelStore
  public var runtimes: [any Runtime]
  public var probe: any DeviceProbe
  /// Conditions that are accepted, reported with every state.
  public var allowed: Set<Caveat>
  /// Whether the processor is kept busy between visits so that its clock stays up, in runs that do not say it.
  public var keepWarm: Bool
  public var timeouts: Timeouts

  public init(
    agent: AgentInfo, token: String, port: UInt16, store: ModelStore, runtimes: [any Runtime],
    probe: any DeviceProbe, allowed: Set<Caveat> = [], keepWarm: Bool = false, timeouts: Timeouts = Timeouts()
  ) {
    precondition(!token.isEmpty, "an agent without a token would serve anybody")
    self.agent = agent
    self.token = token
    self.port = port
    self.store = store
    self.runtimes = runtimes
    self.probe = probe
    self.allowed = allowed
    self.keepWarm = keepWarm
    self.timeouts = timeouts
  }
}

/// How long an agent waits; the defaults are the protocol's.
public struct Timeouts: Sendable {
  /// For a hello to have arrived.
  public var helloSeconds = 10.0
  /// For the next byte of a frame that has begun.
  public var frameSeconds = 30.0
  /// For the place of a client that is leaving.
  public var handoverSeconds = 2.0

  public init() {}
}
