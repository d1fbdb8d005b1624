/// A reason not to measure; the raw value is its name on the wire.
public enum Caveat: String, Sendable, CaseIterable {
  case debuggableBuild = "debuggable_build"
  case powerSave = "power_save"
  case lowBattery = "low_battery"
  case throttled
  case background

  /// What is wrong and what to do about it.
  var remedy: String {
    switch self {
    case .debuggableBuild: "the agent is a debug build; install a release build"
    case .powerSave: "low power mode is on; switch it off"
    case .lowBattery: "the battery is low; charge the device"
    case .throttled: "the device is hot and throttles; let it cool down"
    case .background: "the app is or was in the background; keep it on the screen"
    }
  }
}

/// Decides in which states of the device a measurement is worth nothing.
public enum Readiness {
  /// Below this charge devices begin to save power; the bound is the protocol's.
  static let lowPercent = 15.0

  /// Below this charge a device may save power even while it charges.
  static let lowPercentCharging = 5.0

  /// Reasons not to measure in `now`, in the order of `Caveat`; `before` is the reading at the start of a run.
  public static func reasons(now: DeviceReading, since before: DeviceReading? = nil) -> [Caveat] {
    Caveat.allCases.filter { caveat in
      switch caveat {
      case .debuggableBuild: now.isDebuggable
      case .powerSave: now.state.lowPowerMode == true
      case .lowBattery: now.state.battery.map(isLow) ?? false
      case .throttled: now.state.thermalState == .serious || now.state.thermalState == .critical
      case .background:
        now.state.foreground == false || now.foregroundLosses != (before ?? now).foregroundLosses
      }
    }
  }

  /// Throws OpError `not_ready` where a reason is not `allowed`; returns those that are.
  package static func require(
    _ now: DeviceReading, since before: DeviceReading? = nil, allowed: Set<Caveat>
  ) throws -> [Caveat] {
    let found = reasons(now: now, since: before)
    let open = found.filter { !allowed.contains($0) }
    guard open.isEmpty else {
      let names = open.map(\.rawValue).joined(separator: ", ")
      let remedy = open.map(\.remedy).joined(separator: "; ")
      let when = before == nil ? "" : " at the end of the run"
      throw OpError(
        .notReady, "not measured\(when) (\(names)): \(remedy), or allow it when the agent is started")
    }
    return found
  }

  private static func isLow(_ battery: DeviceState.Battery) -> Bool {
    battery.percent < (battery.charging == true ? lowPercentCharging : lowPercent)
  }
}
