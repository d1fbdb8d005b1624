#if os(macOS)
  import AppleSystem
  import BenchKit
  import Foundation

  /// A Mac. Values that macOS does not give an unprivileged program are nil: temperatures and clocks of the cores.
  /// Its battery is left out; low power mode and the thermal state say what of it decides a latency.
  public struct MacProbe: DeviceProbe {
    private let simulatedProduct: String?

    /// With `simulating`, the machine reports itself as that product, and as simulated.
    public init(simulating product: String? = nil) {
      simulatedProduct = product
    }

    public func describe() -> DeviceInfo {
      DeviceInfo(
        model: simulatedProduct ?? AppleSystem.value("hw.model") ?? "unknown", os: AppleSystem.name("macOS"),
        osBuild: AppleSystem.value("kern.osversion"), soc: AppleSystem.value("machdep.cpu.brand_string"),
        cores: ProcessInfo.processInfo.activeProcessorCount,
        memoryBytes: Int(clamping: ProcessInfo.processInfo.physicalMemory),
        simulated: simulatedProduct != nil)
    }

    public func read() async -> DeviceReading {
      DeviceReading(state: AppleSystem.state(), isDebuggable: AppleSystem.isDebuggable)
    }

    /// Version and build, on which depends what Core ML does.
    public var system: String { AppleSystem.version(of: "macOS") }
  }
#endif
