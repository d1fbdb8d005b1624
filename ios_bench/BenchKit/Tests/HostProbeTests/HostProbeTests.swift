import BenchKit
import Foundation
import HostProbe
import Testing

@Suite("Host probe")
struct HostProbeTests {
  /// A simulated machine's files in a temporary folder.
  private func machine(_ files: [String: String]) throws -> (probe: HostProbe, root: URL) {
    let root = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    for (path, text) in files {
      let file = root.appendingPathComponent(path)
      try FileManager.default.createDirectory(
        at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data(text.utf8).write(to: file)
    }
    return (HostProbe(root: root.path), root)
  }

  @Test("Every field is read from its file")
  func everything() async throws {
    let (probe, root) = try machine([
      "proc/meminfo": "MemTotal:  2048 kB\nMemAvailable:  1024 kB\n",
      "proc/loadavg": "0.50 0.40 0.30 1/234 5678\n",
      "proc/stat": "cpu  1 2 3 4 5 6 7 250 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n",
      "proc/cpuinfo": "processor : 0\nmodel name\t: A CPU: fast\n",
      "proc/sys/kernel/osrelease": "6.1.0\n",
      "proc/self/status": "VmPeak:\t  900 kB\nVmHWM:\t  120 kB\nVmRSS:\t  100 kB\n",
      "proc/self/statm": "100 25 1 1 1 1 1\n",
      "etc/os-release": "NAME=\"X\"\nPRETTY_NAME=\"An OS 1\"\n",
      "sys/class/dmi/id/product_name": "A machine\n",
      "sys/devices/system/cpu/cpu10/cpufreq/scaling_cur_freq": "1500000\n",
      "sys/devices/system/cpu/cpu10/cpufreq/cpuinfo_max_freq": "2400000\n",
      "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor": "performance\n",
      "sys/devices/system/cpu/cpu2/thermal_throttle/core_throttle_count": "3\n",
      "sys/devices/system/cpu/cpu10/thermal_throttle/core_throttle_count": "4\n",
      "sys/devices/system/cpu/cpufreq/policy0": "",
      "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
      "sys/class/thermal/thermal_zone0/temp": "45500\n",
      "sys/class/power_supply/AC/type": "Mains\n",
      "sys/class/power_supply/BAT0/type": "Battery\n",
      "sys/class/power_supply/BAT0/capacity": "55\n",
      "sys/class/power_supply/BAT0/status": "Discharging\n",
      "sys/class/power_supply/BAT0/temp": "301\n",
    ])
    defer { try? FileManager.default.removeItem(at: root) }

    let info = probe.describe()
    #expect(info.model == "A machine")
    #expect(info.os == "An OS 1")
    #expect(info.osBuild == "6.1.0")
    #expect(info.soc == "A CPU: fast")
    #expect(info.memoryBytes == 2048 << 10)
    #expect(!info.simulated)

    let state = await probe.read().state
    #expect(state.loadAverage1m == 0.5)
    #expect(state.stealMs == 2500)
    #expect(state.freeMemoryBytes == 1024 << 10)
    #expect(state.agentMemoryBytes == 25 * 4096)
    #expect(state.agentPeakMemoryBytes == 120 << 10)
    #expect(
      state.cpus == [
        .init(cpu: 2, mhz: nil, maxMhz: nil, governor: "performance"),
        .init(cpu: 10, mhz: 1500, maxMhz: nil, governor: nil, hardwareMaxMhz: 2400),
      ])
    #expect(state.throttleCount == 7)
    #expect(state.thermalZones == [.init(name: "x86_pkg_temp", celsius: 45.5)])
    #expect(state.battery == .init(percent: 55, charging: false, celsius: 30.1))
    #expect(state.thermalState == nil)
    #expect(state.foreground == nil)
  }

  @Test("A machine that tells nothing gives nil, not a guess")
  func nothing() async throws {
    let (probe, root) = try machine(["unrelated": ""])
    defer { try? FileManager.default.removeItem(at: root) }
    let reading = await probe.read()
    var expected = DeviceState(uptimeNanoseconds: reading.state.uptimeNanoseconds)
    expected.cpus = []
    #expect(reading.state == expected)
    #expect(probe.describe().soc == nil)
  }

  @Test(
    "Free memory is bounded by the control group, whose file cache counts as free",
    arguments: [("1048576", 524_288 + 4096), ("max", 1 << 20), ("900000000", 1 << 20)])
  func controlGroup(limit: String, free: Int) throws {
    let (probe, root) = try machine([
      "proc/meminfo": "MemAvailable:  1024 kB\n",
      "sys/fs/cgroup/memory.max": limit,
      "sys/fs/cgroup/memory.current": "524288",
      "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 4096\n",
    ])
    defer { try? FileManager.default.removeItem(at: root) }
    #expect(probe.freeMemoryBytes() == free)
  }

  @Test("Threads are as many as cores that are not little, which have less than half of the largest capacity")
  func cores() throws {
    // Little, middle and big cores, of which the process may not use the first.
    let capacities = [200, 200, 200, 200, 700, 700, 700, 700, 1024]
    var files = ["proc/thread-self/status": "Name:\tagent\nCpus_allowed_list:\t1-8\n"]
    for (core, capacity) in capacities.enumerated() {
      files["sys/devices/system/cpu/cpu\(core)/cpu_capacity"] = "\(capacity)\n"
    }
    let (probe, root) = try machine(files)
    defer { try? FileManager.default.removeItem(at: root) }
    #expect(probe.cores == Array(1...8))
    #expect(probe.defaultThreads == 5)
  }

  @Test("Where all cores are alike, or one does not tell its clock, half of them are taken")
  func half() {
    #expect(threadsByDefault(cores: [0, 1, 2, 3], highestKHz: [0: 3, 1: 3, 2: 3, 3: 3]) == 2)
    #expect(threadsByDefault(cores: [0, 1, 2, 3], highestKHz: [0: 1, 1: 3, 2: 3]) == 2)
    #expect(threadsByDefault(cores: [7], highestKHz: [:]) == 1)
    // No clock is below half of the highest, and all capacities are equal.
    #expect(threadsByDefault(cores: [0, 1, 2, 3], highestKHz: [0: 2, 1: 3, 2: 3, 3: 3]) == 2)
    #expect(threadsByDefault(cores: [0, 1, 2], capacities: [0: 9, 1: 9, 2: 9], highestKHz: [:]) == 1)
    #expect(threadsByDefault(cores: [0, 1, 2, 3], highestKHz: [0: 1, 1: 3, 2: 3, 3: 3]) == 3)
  }

  @Test("A chip without little cores uses all, though its slowest cores have the lowest clock")
  func noLittleCores() {
    let capacities = Dictionary(uniqueKeysWithValues: (0..<8).map { ($0, $0 < 6 ? 800 : 1024) })
    let clocks = Dictionary(uniqueKeysWithValues: (0..<8).map { ($0, $0 < 6 ? 1_000 : 3_000) })
    #expect(threadsByDefault(cores: Array(0..<8), capacities: capacities, highestKHz: clocks) == 8)
  }

  @Test("Lists of cores")
  func lists() {
    #expect(parseCores("4-8") == [4, 5, 6, 7, 8])
    #expect(parseCores("2-3,0") == [0, 2, 3])
    for list in ["", "4-", "8-4", "-1", "a", "1,,2", "99999", "1-2-3", "+1"] {
      #expect(parseCores(list) == nil)
    }
  }

  @Test("A simulated product is told as such")
  func simulated() {
    let info = HostProbe(simulating: "iPhone14,5").describe()
    #expect(info.model == "iPhone14,5")
    #expect(info.simulated)
    #expect(info.cores >= 1)
  }
}
