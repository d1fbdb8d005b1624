import BenchKit
import Foundation

/// A Linux machine, read from /proc and /sys; what can't be read is nil.
public struct HostProbe: DeviceProbe {
  private let files: SystemFiles
  private let simulatedProduct: String?

  /// With `simulating`, the machine reports itself as that product, and as simulated.
  public init(simulating product: String? = nil, root: String = "/") {
    files = SystemFiles(root: root)
    cores =
      files.allowedCores().flatMap(parseCores) ?? Array(0..<ProcessInfo.processInfo.activeProcessorCount)
    simulatedProduct = product
  }

  /// Cores that this process may run on, as it was started: its threads may be pinned to some of them later.
  public let cores: [Int]

  /// As many threads as there are cores that are not little.
  public var defaultThreads: Int {
    threadsByDefault(cores: cores, capacities: files.capacities(), highestKHz: files.highestKHz())
  }

  public func describe() -> DeviceInfo {
    DeviceInfo(
      model: simulatedProduct ?? files.text("sys/class/dmi/id/product_name") ?? architecture(),
      os: files.osName() ?? "Linux",
      osBuild: files.text("proc/sys/kernel/osrelease"),
      soc: files.cpuModel(),
      cores: cores.count,
      memoryBytes: files.memory("MemTotal") ?? 0,
      simulated: simulatedProduct != nil)
  }

  public func read() async -> DeviceReading {
    var state = DeviceState(uptimeNanoseconds: monotonicNanoseconds())
    state.loadAverage1m = files.loadAverage()
    state.cpus = files.cpuClocks()
    state.stealMs = files.stealMs()
    state.thermalZones = files.thermalZones()
    state.throttleCount = files.throttleCount()
    state.battery = files.battery()
    state.freeMemoryBytes = freeMemoryBytes()
    state.agentMemoryBytes = files.residentBytes()
    state.agentPeakMemoryBytes = files.peakResidentBytes()
    state.cores = files.allowedCores()
    #if DEBUG
      return DeviceReading(state: state, isDebuggable: true)
    #else
      return DeviceReading(state: state, isDebuggable: false)
    #endif
  }

  /// Memory that can be taken without swapping, within the limit of this process's control group if any.
  public func freeMemoryBytes() -> Int? {
    guard let available = files.memory("MemAvailable") else { return nil }
    guard let limit = files.integer("sys/fs/cgroup/memory.max"),
      let current = files.integer("sys/fs/cgroup/memory.current")
    else { return available }
    let reclaimable = files.field("inactive_file", of: "sys/fs/cgroup/memory.stat") ?? 0
    return max(0, min(available, limit - current + reclaimable))
  }

  private func architecture() -> String {
    var name = utsname()
    uname(&name)
    return withUnsafeBytes(of: name.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
}
