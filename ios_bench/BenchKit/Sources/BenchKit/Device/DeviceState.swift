/// State of the device at one moment. Unknown fields are nil; nothing is guessed.
public struct DeviceState: Sendable, Equatable {
  /// How hot the device is, in ProcessInfo's terms; the raw value is the name on the wire.
  public enum ThermalState: String, Sendable {
    case nominal, fair, serious, critical
  }

  /// A core's clock, the highest that it may have now, and the highest that its hardware has.
  public struct CpuClock: Sendable, Equatable {
    public var cpu: Int
    public var mhz: Double?
    public var maxMhz: Double?
    public var governor: String?
    public var hardwareMaxMhz: Double?

    public init(
      cpu: Int, mhz: Double?, maxMhz: Double?, governor: String?, hardwareMaxMhz: Double? = nil
    ) {
      self.cpu = cpu
      self.mhz = mhz
      self.maxMhz = maxMhz
      self.governor = governor
      self.hardwareMaxMhz = hardwareMaxMhz
    }
  }

  /// A temperature sensor.
  public struct ThermalZone: Sendable, Equatable {
    public var name: String
    public var celsius: Double

    public init(name: String, celsius: Double) {
      self.name = name
      self.celsius = celsius
    }
  }

  public struct Battery: Sendable, Equatable {
    /// Charge, 0 to 100.
    public var percent: Double
    public var charging: Bool?
    public var celsius: Double?

    public init(percent: Double, charging: Bool?, celsius: Double?) {
      self.percent = percent
      self.charging = charging
      self.celsius = celsius
    }
  }

  /// Monotonic.
  public var uptimeNanoseconds: UInt64
  public var loadAverage1m: Double?
  /// Empty where clocks can't be read.
  public var cpus: [CpuClock] = []
  /// Time since boot that a hypervisor gave to others.
  public var stealMs: Int?
  public var thermalState: ThermalState?
  public var thermalZones: [ThermalZone] = []
  /// Thermal throttling events since boot.
  public var throttleCount: Int?
  public var battery: Battery?
  public var lowPowerMode: Bool?
  public var freeMemoryBytes: Int?
  /// Resident memory of the agent.
  public var agentMemoryBytes: Int?
  /// The most of it since the agent began.
  public var agentPeakMemoryBytes: Int?
  /// Whether the agent's app is in the foreground.
  public var foreground: Bool?
  /// Cores that the agent's threads may run on, as Linux lists them.
  public var cores: String?

  public init(uptimeNanoseconds: UInt64) {
    self.uptimeNanoseconds = uptimeNanoseconds
  }
}

/// What the session adds to a device's state: how it times, and which conditions are allowed.
package struct SessionState: Sendable, Equatable {
  /// Class of the timing thread (Apple).
  package var qos: String?
  package var keepWarm: Bool
  package var caveats: [Caveat]
}

extension DeviceState {
  package func json(in session: SessionState) -> JSON {
    .object([
      "uptime_ns": .integer(Int(clamping: uptimeNanoseconds)),
      "load_average_1m": .optional(loadAverage1m),
      "cpus": .array(cpus.map(\.json)),
      "steal_ms": .optional(stealMs),
      "thermal_state": .optional(thermalState?.rawValue),
      "thermal_headroom": .null,
      "thermal_zones": .array(thermalZones.map(\.json)),
      "throttle_count": .optional(throttleCount),
      "battery": battery?.json ?? .null,
      "low_power_mode": .optional(lowPowerMode),
      "free_memory_bytes": .optional(freeMemoryBytes),
      "agent_memory_bytes": .optional(agentMemoryBytes),
      "agent_peak_memory_bytes": .optional(agentPeakMemoryBytes),
      "qos": .optional(session.qos),
      "foreground": .optional(foreground),
      "cores": .optional(cores),
      "keep_warm": .bool(session.keepWarm),
      "caveats": .array(session.caveats.map { .string($0.rawValue) }),
    ])
  }
}

extension DeviceState.CpuClock {
  fileprivate var json: JSON {
    .object([
      "cpu": .integer(cpu), "mhz": .optional(mhz), "max_mhz": .optional(maxMhz),
      "governor": .optional(governor), "hardware_max_mhz": .optional(hardwareMaxMhz),
    ])
  }
}

extension DeviceState.ThermalZone {
  fileprivate var json: JSON { .object(["name": .string(name), "celsius": .optional(celsius)]) }
}

extension DeviceState.Battery {
  fileprivate var json: JSON {
    .object(["percent": .optional(percent), "charging": .optional(charging), "celsius": .optional(celsius)])
  }
}
