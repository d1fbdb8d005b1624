import BenchKit

/// What the app was started with: by `bench` over USB, or by hand.
public struct Launch: Sendable, Equatable {
  /// What a client must know.
  public let token: String
  /// Whether to show the token, because only who sees the screen can know it.
  public let isPairing: Bool
  public let settings: AgentSettings
  /// A bundle to run, in the app's documents; nil where the app is to wait for clients.
  public let bundle: String?

  /// Reads `BLOCKTIME_TOKEN`, `BLOCKTIME_ALLOW` and the argument `--bundle NAME`. An unknown reason is ignored, which
  /// allows nothing.
  public init(environment: [String: String], arguments: [String] = []) {
    bundle = arguments.firstIndex(of: "--bundle").flatMap { arguments[($0 + 1)...].first }
    let given = environment["BLOCKTIME_TOKEN"] ?? ""
    isPairing = given.isEmpty
    token = given.isEmpty ? PairingCode.make() : given
    let names = (environment["BLOCKTIME_ALLOW"] ?? "").split(separator: ",").map(String.init)
    settings = AgentSettings(allowed: Set(names.compactMap(Caveat.init)))
  }
}

/// What the person with the phone decides.
public struct AgentSettings: Sendable, Equatable {
  /// Conditions that are accepted, reported with every result.
  public var allowed: Set<Caveat>
  /// Whether the processor is kept busy between visits.
  public var keepWarm: Bool

  public init(allowed: Set<Caveat> = [], keepWarm: Bool = false) {
    self.allowed = allowed
    self.keepWarm = keepWarm
  }

  /// Whether one reason is ignored.
  public subscript(allows caveat: Caveat) -> Bool {
    get { allowed.contains(caveat) }
    set {
      if newValue { allowed.insert(caveat) } else { allowed.remove(caveat) }
    }
  }
}
