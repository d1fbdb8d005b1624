#if os(iOS)
  import AppleSystem
  import BenchKit
  import UIKit
  import os

  /// An iPhone or iPad. Unknown values are nil: temperatures, clocks of the cores, the SoC's name.
  public struct PhoneProbe: DeviceProbe {
    private let foreground: Foreground

    @MainActor
    public init(foreground: Foreground) {
      self.foreground = foreground
      UIDevice.current.isBatteryMonitoringEnabled = true
    }

    public func describe() -> DeviceInfo {
      DeviceInfo(
        model: AppleSystem.value("hw.machine") ?? "unknown", os: AppleSystem.name("iOS"),
        osBuild: AppleSystem.value("kern.osversion"), soc: nil,
        cores: ProcessInfo.processInfo.activeProcessorCount,
        memoryBytes: Int(clamping: ProcessInfo.processInfo.physicalMemory))
    }

    public func read() async -> DeviceReading {
      var state = AppleSystem.state()
      state.battery = await battery()
      state.freeMemoryBytes = Self.freeMemoryBytes()
      state.foreground = foreground.isActive
      return DeviceReading(
        state: state, isDebuggable: AppleSystem.isDebuggable, foregroundLosses: foreground.losses)
    }

    /// Memory that the app may still take before iOS ends it; nil where there is no such bound.
    public static func freeMemoryBytes() -> Int? {
      let free = os_proc_available_memory()
      return free > 0 ? free : nil
    }

    /// Version and build, on which depends what the system's frameworks do.
    public var system: String { AppleSystem.version(of: "iOS") }

    @MainActor
    private func battery() -> DeviceState.Battery? {
      let device = UIDevice.current
      // Below 0 where iOS does not know, as in the simulator.
      guard device.batteryLevel >= 0 else { return nil }
      let charging: Bool? =
        switch device.batteryState {
        case .charging, .full: true
        case .unplugged: false
        default: nil
        }
      return .init(percent: Double(device.batteryLevel) * 100, charging: charging, celsius: nil)
    }
  }
#endif
