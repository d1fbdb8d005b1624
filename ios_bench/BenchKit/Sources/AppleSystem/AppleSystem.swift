#if canImport(Darwin)
  import BenchKit
  import CAppleMemory
  import Darwin
  import Foundation

  /// System information common to iPhones and Macs.
  package enum AppleSystem {
    /// Version and build, on which depends what the system's frameworks do.
    package static func version(of name: String) -> String {
      "\(self.name(name)) (\(value("kern.osversion") ?? "unknown build"))"
    }

    /// The system's name with its version, such as `iOS 18.1`.
    package static func name(_ name: String) -> String {
      let version = ProcessInfo.processInfo.operatingSystemVersion
      let patch = version.patchVersion > 0 ? ".\(version.patchVersion)" : ""
      return "\(name) \(version.majorVersion).\(version.minorVersion)\(patch)"
    }

    /// The kernel's text value of `name`.
    package static func value(_ name: String) -> String? {
      var bytes = 0
      guard sysctlbyname(name, nil, &bytes, nil, 0) == 0, bytes > 1 else { return nil }
      var value = [UInt8](repeating: 0, count: bytes)
      guard sysctlbyname(name, &value, &bytes, nil, 0) == 0 else { return nil }
      return String(decoding: value.prefix { $0 != 0 }, as: UTF8.self)
    }

    /// All of a state that needs no battery, screen or bound of memory.
    package static func state() -> DeviceState {
      var state = DeviceState(uptimeNanoseconds: monotonicNanoseconds())
      var averages = [0.0]
      state.loadAverage1m = getloadavg(&averages, 1) == 1 ? averages[0] : nil
      state.thermalState = thermalState()
      state.lowPowerMode = ProcessInfo.processInfo.isLowPowerModeEnabled
      let footprint = blocktime_footprint_bytes()
      state.agentMemoryBytes = footprint < 0 ? nil : Int(footprint)
      let peak = blocktime_footprint_peak_bytes()
      state.agentPeakMemoryBytes = peak < 0 ? nil : Int(peak)
      return state
    }

    /// What is built for debugging is not optimised. That a debugger may attach is not a reason: every app that is
    /// signed for development lets it.
    package static var isDebuggable: Bool {
      #if DEBUG
        true
      #else
        false
      #endif
    }

    private static func thermalState() -> DeviceState.ThermalState? {
      switch ProcessInfo.processInfo.thermalState {
      case .nominal: .nominal
      case .fair: .fair
      case .serious: .serious
      case .critical: .critical
      @unknown default: nil
      }
    }
  }
#endif
