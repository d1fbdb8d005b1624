/// Reads what the device is and how it is.
public protocol DeviceProbe: Sendable {
  /// Identity of the device; unknown fields are nil.
  func describe() -> DeviceInfo

  /// The state now. Never called while a model is timed.
  func read() async -> DeviceReading
}

/// A state as it is reported, and what decides whether measuring is allowed beyond it.
public struct DeviceReading: Sendable, Equatable {
  public var state: DeviceState
  /// Whether this program was built for debugging, so that its own part of a timing is slower.
  public var isDebuggable: Bool
  /// How often the agent's app has left the foreground since it started: a run during which this grew was
  /// interrupted, even if the app is back at its end.
  public var foregroundLosses: Int

  public init(state: DeviceState, isDebuggable: Bool, foregroundLosses: Int = 0) {
    self.state = state
    self.isDebuggable = isDebuggable
    self.foregroundLosses = foregroundLosses
  }
}

/// What the device is. Its own name is left out: LUTs are shared.
public struct DeviceInfo: Sendable, Equatable {
  public var model: String
  public var os: String
  public var osBuild: String?
  public var soc: String?
  /// Cores that the agent may use.
  public var cores: Int
  public var memoryBytes: Int
  /// Whether the agent runs on another machine than the one that it names.
  public var simulated: Bool

  public init(
    model: String, os: String, osBuild: String?, soc: String?, cores: Int, memoryBytes: Int,
    simulated: Bool = false
  ) {
    self.model = model
    self.os = os
    self.osBuild = osBuild
    self.soc = soc
    self.cores = cores
    self.memoryBytes = memoryBytes
    self.simulated = simulated
  }

  package var json: JSON {
    .object([
      "model": .string(model), "os": .string(os), "os_build": .optional(osBuild), "soc": .optional(soc),
      "cores": .integer(cores), "memory_bytes": .integer(memoryBytes), "simulated": .bool(simulated),
    ])
  }
}
