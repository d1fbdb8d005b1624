import BenchKit
import ExecuTorchRunner
import Foundation
import Testing

/// With real models the runner is tested from Python, which can export them: tests/agents.
@Suite("ExecuTorch runner")
actor ExecuTorchRunnerTests {
  private func code(_ bytes: [UInt8], free: Int? = nil, options: LoadOptions = [:]) async -> ErrorCode? {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    defer { try? FileManager.default.removeItem(at: file) }
    do {
      try Data(bytes).write(to: file)
      _ = try await ExecuTorchRuntime(cores: [0, 1, 2, 3], defaultThreads: 3) { free }.load(
        StoredModel(sha256: "", url: file, bytes: bytes.count), options: options, session: self)
    } catch let error as OpError {
      return error.code
    } catch {
      Issue.record(error)
    }
    return nil
  }

  private static let model = ProcessInfo.processInfo.environment["BLOCKTIME_PTE"]

  /// Notes what is asked for, in order.
  private final class Notes: @unchecked Sendable {
    var asked: [String] = []
  }

  @Test("The time of a load is that of program and method alone", .enabled(if: model != nil))
  func loadTime() async throws {
    let notes = Notes()
    let cores = Array(0..<ProcessInfo.processInfo.activeProcessorCount)
    var runtime = ExecuTorchRuntime(cores: cores, defaultThreads: 1) {
      notes.asked.append("memory")
      return nil
    }
    runtime.now = {
      notes.asked.append("clock")
      return UInt64(40 * notes.asked.count)
    }
    let url = URL(fileURLWithPath: try #require(Self.model))
    let bytes = try Data(contentsOf: url).count
    let loaded = try await runtime.load(
      StoredModel(sha256: "", url: url, bytes: bytes), options: [:], session: self)
    #expect(loaded.loadNanoseconds == 40)
    #expect(notes.asked == ["memory", "clock", "clock"])
  }

  @Test("It tells its options and backends")
  func describe() {
    let info = ExecuTorchRuntime(cores: [0, 1, 2, 3], defaultThreads: 3) { nil }.describe()
    #expect(info.options == ["threads": .int(default: 3, range: 1...4), "cores": .text(default: "")])
    #expect(info.backends.contains("XnnpackBackend"))
    #expect(!info.version.isEmpty)
  }

  @Test(
    "Options that are unknown or out of range are refused",
    arguments: [
      ["cores": .int(1)], ["cores": .string("1-0")], ["cores": .string("3-4")],
      ["cores": .string("0"), "threads": .int(2)], ["core": .string("")], ["threads": .int(0)],
      ["threads": .int(5)], ["threads": .bool(true)],
      ["threads": .string("1")],
    ] as [LoadOptions])
  func options(options: LoadOptions) async {
    #expect(await code([], options: options) == .badOption)
  }

  @Test(
    "What is not a .pte is a bad model",
    arguments: [
      [], [1], Array("no model".utf8), [8, 0, 0, 0, 0x45, 0x54, 0x31, 0x32],
      [255, 255, 255, 255, 0x45, 0x54, 0x31, 0x32, 0, 0, 0, 0],
    ] as [[UInt8]])
  func noModel(bytes: [UInt8]) async {
    #expect(await code(bytes) == .badModel)
  }

  @Test("Any bytes after the mark of a program are a bad model, too", arguments: 0..<4)
  func garbage(seed: UInt64) throws {
    var state = seed &* 0x9E37_79B9_7F4A_7C15 &+ 1
    for _ in 0..<5000 {
      var bytes: [UInt8] = [0, 0, 0, 0, 0x45, 0x54, 0x31, 0x32]
      for index in 0..<Int(state % 120) {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        // Small numbers, so that many offsets lead into the file.
        bytes.append(index % 3 == 0 ? UInt8(state >> 60) : 0)
      }
      bytes[0] = UInt8(state >> 33 & 63)
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      #expect(throws: ProgramFile.Damaged.self) { try ProgramFile(Data(bytes)).delegates(of: "forward") }
    }
  }
}
