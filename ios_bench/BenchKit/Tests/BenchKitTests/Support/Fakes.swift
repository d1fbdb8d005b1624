import BenchKit
import Foundation

/// Calls of fake models in order, shared by all of them.
final class CallLog {
  var calls: [String] = []
}

/// A model that doubles its one input: `size` float32 numbers.
final class Doubler: Model {
  struct Broken: LocalizedError {
    let errorDescription: String? = "it broke\nwhile executing"
  }

  let name: String
  let inputs: [TensorSpec]
  var outputs: [TensorSpec] { inputs }
  var failsAtExecution: Int?
  private(set) var isClosed = false
  private let log: CallLog
  private var prepared: [Tensor] = []
  private var current: [Float]?
  private var result: [Float] = []
  private var executions = 0

  init(_ name: String, size: Int = 2, log: CallLog = CallLog()) {
    self.name = name
    self.log = log
    inputs = [TensorSpec(dtype: .float32, shape: [1, size])]
  }

  func prepare(_ tensors: [Tensor]) throws {
    log.calls.append("prepare \(name)")
    prepared = tensors
  }

  func setInputs() throws {
    log.calls.append("set \(name)")
    current = prepared[0].bytes.withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
    }
  }

  func execute() throws {
    log.calls.append("run \(name)")
    executions += 1
    if executions == failsAtExecution { throw Broken() }
    result = current!.map { $0 * 2 }
    current = nil
  }

  func readOutputs() throws -> [Tensor] {
    [Tensor(spec: outputs[0], bytes: result.withUnsafeBytes { Array($0) })]
  }

  func close() { isClosed = true }
}

/// Loads files whose text is `doubler`, `doubler 3` (numbers in and out) or `broken`; anything else is not a model.
struct DoublerRuntime: Runtime {
  let name = "doubler"
  /// What every load waits for.
  var loading: (@Sendable () async -> Void)?

  func describe() -> RuntimeInfo {
    RuntimeInfo(version: "1", backends: ["Cpu"], options: ["threads": .int(default: 1, range: 1...4)])
  }

  func load(
    _ model: StoredModel, options: LoadOptions, session: isolated any Actor
  ) async throws -> LoadedModel {
    if let waits = loading { await waits() }
    let words = try String(contentsOf: model.url, encoding: .utf8).split(separator: " ")
    let doubler: Doubler
    switch words.first {
    case "doubler": doubler = Doubler(model.sha256, size: words.count > 1 ? Int(words[1])! : 2)
    case "broken":
      doubler = Doubler(model.sha256)
      doubler.failsAtExecution = 1
    default: throw OpError(.badModel, "no doubler; make one")
    }
    if let unknown = options.keys.first(where: { $0 != "threads" }) {
      throw OpError(.badOption, "no option \(unknown)")
    }
    return LoadedModel(
      model: doubler, loadNanoseconds: 7, options: ["threads": .int(1)].merging(options) { $1 },
      delegates: [Delegate(backend: "Cpu", count: 1)],
      compileNanoseconds: 5, cached: false, inputBuffers: .ioSurface
    ) {
      Placement(operations: [.init(name: "out", type: "mul", unit: .neuralEngine, cost: 1)])
    }
  }
}

/// A device whose state the test sets; every reading takes the next of `readings`, the last one for ever.
final class ScriptedProbe: DeviceProbe, @unchecked Sendable {
  private let lock = NSLock()
  private var readings: [DeviceReading]

  init(_ readings: [DeviceReading] = [ScriptedProbe.fine]) {
    self.readings = readings
  }

  static let fine = DeviceReading(state: DeviceState(uptimeNanoseconds: 1), isDebuggable: false)

  func describe() -> DeviceInfo {
    DeviceInfo(model: "Testphone", os: "TestOS 1", osBuild: nil, soc: nil, cores: 2, memoryBytes: 1 << 30)
  }

  func read() async -> DeviceReading {
    lock.withLock { readings.count > 1 ? readings.removeFirst() : readings[0] }
  }
}

/// A folder that goes when the value does.
final class TemporaryFolder: Sendable {
  let url = FileManager.default.temporaryDirectory.appendingPathComponent("benchkit-\(UUID().uuidString)")

  init() {
    try! FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  var names: Set<String> { Set((try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? []) }
}
