#if os(iOS)
  import BenchKit
  // The kernel's name for this process is a global variable of C.
  @preconcurrency import Darwin
  import UIKit
  import os

  /// An iPhone or iPad. What iOS does not tell is nil: temperatures, clocks of the cores, the SoC's name.
  public struct PhoneProbe: DeviceProbe {
    private let foreground: Foreground

    @MainActor
    public init(foreground: Foreground) {
      self.foreground = foreground
      UIDevice.current.isBatteryMonitoringEnabled = true
    }

    public func describe() -> DeviceInfo {
      DeviceInfo(
        model: systemValue("hw.machine") ?? "unknown", os: systemName, osBuild: systemValue("kern.osversion"),
        soc: nil, cores: ProcessInfo.processInfo.activeProcessorCount,
        memoryBytes: Int(clamping: ProcessInfo.processInfo.physicalMemory))
    }

    public func read() async -> DeviceReading {
      var state = DeviceState(uptimeNanoseconds: monotonicNanoseconds())
      state.loadAverage1m = loadAverage()
      state.thermalState = thermalState()
      state.battery = await battery()
      state.lowPowerMode = ProcessInfo.processInfo.isLowPowerModeEnabled
      state.freeMemoryBytes = Self.freeMemoryBytes()
      state.agentMemoryBytes = footprintBytes()
      state.foreground = foreground.isActive
      return DeviceReading(state: state, isDebuggable: Self.isDebuggable, foregroundLosses: foreground.losses)
    }

    /// Memory that the app may still take before iOS ends it; nil where there is no such bound.
    public static func freeMemoryBytes() -> Int? {
      let free = os_proc_available_memory()
      return free > 0 ? free : nil
    }

    /// Version and build, on which depends what the system's frameworks do.
    public var system: String {
      "\(systemName) (\(systemValue("kern.osversion") ?? "unknown build"))"
    }

    /// What is built for debugging is not optimised. That a debugger may attach is not a reason: every app that is
    /// signed for development lets it.
    private static var isDebuggable: Bool {
      #if DEBUG
        true
      #else
        false
      #endif
    }

    private var systemName: String {
      let version = ProcessInfo.processInfo.operatingSystemVersion
      let patch = version.patchVersion > 0 ? ".\(version.patchVersion)" : ""
      return "iOS \(version.majorVersion).\(version.minorVersion)\(patch)"
    }

    private func thermalState() -> DeviceState.ThermalState? {
      switch ProcessInfo.processInfo.thermalState {
      case .nominal: .nominal
      case .fair: .fair
      case .serious: .serious
      case .critical: .critical
      @unknown default: nil
      }
    }

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

    private func loadAverage() -> Double? {
      var averages = [0.0]
      return getloadavg(&averages, 1) == 1 ? averages[0] : nil
    }

    /// What iOS counts against the app's bound, which is more than what is resident.
    private func footprintBytes() -> Int? {
      var info = task_vm_info_data_t()
      let words = MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size
      var count = mach_msg_type_number_t(words)
      let status = withUnsafeMutablePointer(to: &info) {
        $0.withMemoryRebound(to: integer_t.self, capacity: words) {
          task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
        }
      }
      return status == KERN_SUCCESS ? Int(clamping: info.phys_footprint) : nil
    }

    private func systemValue(_ name: String) -> String? {
      var bytes = 0
      guard sysctlbyname(name, nil, &bytes, nil, 0) == 0, bytes > 1 else { return nil }
      var value = [UInt8](repeating: 0, count: bytes)
      guard sysctlbyname(name, &value, &bytes, nil, 0) == 0 else { return nil }
      return String(decoding: value.prefix { $0 != 0 }, as: UTF8.self)
    }
  }
#endif
