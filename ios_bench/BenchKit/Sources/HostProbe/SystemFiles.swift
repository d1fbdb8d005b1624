import BenchKit
import Foundation

/// Linux's state from files; nil where unavailable.
struct SystemFiles {
  private let root: URL

  init(root: String) {
    self.root = URL(fileURLWithPath: root, isDirectory: true)
  }

  /// A short file's text without the space around it; nil where it can't be read or is empty.
  func text(_ path: String, limit: Int = 256) -> String? {
    guard let file = FileHandle(forReadingAtPath: root.appendingPathComponent(path).path),
      let data = try? file.read(upToCount: limit)
    else { return nil }
    let text = String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    return text.isEmpty ? nil : text
  }

  func integer(_ path: String) -> Int? {
    text(path).flatMap { Int($0) }
  }

  /// The number after `name` in a file with a name and a number in every line.
  func field(_ name: String, of path: String) -> Int? {
    for line in (text(path, limit: 1 << 16) ?? "").split(separator: "\n") {
      let words = line.split(whereSeparator: { " :\t".contains($0) })
      if words.count >= 2, words[0] == name { return Int(words[1]) }
    }
    return nil
  }

  /// A field of /proc/meminfo, in bytes.
  func memory(_ name: String) -> Int? {
    field(name, of: "proc/meminfo").map { $0 << 10 }
  }

  func loadAverage() -> Double? {
    text("proc/loadavg")?.split(separator: " ").first.flatMap { Double($0) }
  }

  /// Time since boot that a hypervisor gave to others while this machine had work.
  func stealMs() -> Int? {
    let words = (text("proc/stat") ?? "").split(separator: "\n").first?.split(separator: " ") ?? []
    guard words.count > 8, words[0] == "cpu", let ticks = Int(words[8]) else { return nil }
    return ticks * 1000 / sysconf(Int32(_SC_CLK_TCK))
  }

  /// Resident memory of this process.
  func residentBytes() -> Int? {
    let words = (text("proc/self/statm") ?? "").split(separator: " ")
    guard words.count > 1, let pages = Int(words[1]) else { return nil }
    return pages * sysconf(Int32(_SC_PAGESIZE))
  }

  /// The most that was ever resident of this process.
  func peakResidentBytes() -> Int? {
    for line in (text("proc/self/status", limit: 1 << 14) ?? "").split(separator: "\n")
    where line.hasPrefix("VmHWM:") {
      return line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) }.map { $0 << 10 }
    }
    return nil
  }

  func osName() -> String? {
    for line in (text("etc/os-release", limit: 1 << 14) ?? "").split(separator: "\n")
    where line.hasPrefix("PRETTY_NAME=") {
      return line.dropFirst("PRETTY_NAME=".count).trimmingCharacters(in: CharacterSet(charactersIn: "\"'"))
    }
    return nil
  }

  func cpuModel() -> String? {
    for line in (text("proc/cpuinfo", limit: 1 << 16) ?? "").split(separator: "\n")
    where line.hasPrefix("model name") {
      guard let colon = line.firstIndex(of: ":") else { continue }
      return String(line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces).prefix(256))
    }
    return nil
  }

  func cpuClocks() -> [DeviceState.CpuClock] {
    let hardware = highestKHz()
    return numberedFolders("sys/devices/system/cpu", prefix: "cpu").compactMap { cpu, folder in
      let current = integer("\(folder)/cpufreq/scaling_cur_freq")
      let highest = integer("\(folder)/cpufreq/scaling_max_freq")
      let governor = text("\(folder)/cpufreq/scaling_governor")
      if current == nil && highest == nil && governor == nil { return nil }
      return .init(
        cpu: cpu, mhz: current.map { Double($0) / 1000 }, maxMhz: highest.map { Double($0) / 1000 },
        governor: governor, hardwareMaxMhz: hardware[cpu].map { Double($0) / 1000 })
    }
  }

  /// Highest clock that the hardware has, of the cores that report it.
  func highestKHz() -> [Int: Int] { byCore("cpufreq/cpuinfo_max_freq") }

  /// Capacity of the cores that have one: what a core does at its highest clock, the largest core being 1024.
  func capacities() -> [Int: Int] { byCore("cpu_capacity") }

  private func byCore(_ file: String) -> [Int: Int] {
    let told = numberedFolders("sys/devices/system/cpu", prefix: "cpu").compactMap { cpu, folder in
      integer("\(folder)/\(file)").map { (cpu, $0) }
    }
    return Dictionary(uniqueKeysWithValues: told)
  }

  /// Cores that the calling thread may run on, as Linux lists them.
  func allowedCores() -> String? {
    for line in (text("proc/thread-self/status", limit: 1 << 14) ?? "").split(separator: "\n")
    where line.hasPrefix("Cpus_allowed_list:") {
      return line.dropFirst("Cpus_allowed_list:".count).trimmingCharacters(in: .whitespaces)
    }
    return nil
  }

  /// Thermal throttling events of all cores since boot (x86 only).
  func throttleCount() -> Int? {
    let counts = numberedFolders("sys/devices/system/cpu", prefix: "cpu").compactMap { _, folder in
      integer("\(folder)/thermal_throttle/core_throttle_count")
    }
    return counts.isEmpty ? nil : counts.reduce(0, +)
  }

  func thermalZones() -> [DeviceState.ThermalZone] {
    numberedFolders("sys/class/thermal", prefix: "thermal_zone").compactMap { _, folder in
      guard let name = text("\(folder)/type"), let millidegrees = integer("\(folder)/temp") else {
        return nil
      }
      return .init(name: name, celsius: Double(millidegrees) / 1000)
    }
  }

  func battery() -> DeviceState.Battery? {
    for supply in names(in: "sys/class/power_supply").sorted() {
      let folder = "sys/class/power_supply/\(supply)"
      guard text("\(folder)/type") == "Battery", let percent = integer("\(folder)/capacity") else { continue }
      let charging = text("\(folder)/status").map { $0 != "Discharging" }
      let celsius = integer("\(folder)/temp").map { Double($0) / 10 }
      return .init(percent: Double(percent), charging: charging, celsius: celsius)
    }
    return nil
  }

  /// Folders in `parent` named `prefix` and a number, by their number.
  private func numberedFolders(_ parent: String, prefix: String) -> [(number: Int, path: String)] {
    names(in: parent)
      .compactMap { name in
        guard name.hasPrefix(prefix), let number = Int(name.dropFirst(prefix.count)) else { return nil }
        return (number, "\(parent)/\(name)")
      }
      .sorted { $0.number < $1.number }
  }

  private func names(in folder: String) -> [String] {
    (try? FileManager.default.contentsOfDirectory(atPath: root.appendingPathComponent(folder).path)) ?? []
  }
}
