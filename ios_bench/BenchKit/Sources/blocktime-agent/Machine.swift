import BenchKit
import Foundation

#if os(macOS)
  import CoreMLRunner
  import MacProbe

  /// A Mac, with Core ML.
  struct Machine {
    let probe: any DeviceProbe
    let runtimes: [any Runtime]

    /// Compiled models are cached next to the store. Throws where their folder can't be made.
    init(_ options: Options) throws {
      let probe = MacProbe(simulating: options.simulatedProduct)
      let compiled = URL(fileURLWithPath: options.store + "-coreml")
      self.probe = probe
      // macOS swaps where an app of iOS would be ended: there is no bound of memory to keep to.
      runtimes = [
        try CoreMLRuntime(
          cache: compiled, system: probe.system, freeMemoryBytes: { nil },
          freeDiskBytes: { Self.freeBytes(at: compiled) })
      ]
    }

    private static func freeBytes(at folder: URL) -> Int? {
      let attributes = try? FileManager.default.attributesOfFileSystem(forPath: folder.path)
      return (attributes?[.systemFreeSize] as? NSNumber)?.intValue
    }
  }
#else
  import ExecuTorchRunner
  import HostProbe

  /// A Linux machine, with ExecuTorch.
  struct Machine {
    let probe: any DeviceProbe
    let runtimes: [any Runtime]

    init(_ options: Options) throws {
      let probe = HostProbe(simulating: options.simulatedProduct)
      self.probe = probe
      runtimes = [
        ExecuTorchRuntime(
          cores: probe.cores, defaultThreads: probe.defaultThreads, freeMemoryBytes: probe.freeMemoryBytes)
      ]
    }
  }
#endif
