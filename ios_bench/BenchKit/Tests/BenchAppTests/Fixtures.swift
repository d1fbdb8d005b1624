import BenchApp
import BenchKit
import Fixtures
import Foundation

/// Makes servers on any free port, and remembers them.
@MainActor
final class Servers {
  private(set) var made: [AgentSettings] = []
  var runtimes: [any Runtime] = []
  private var all: [AgentServer] = []
  private let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
    "app-\(UUID().uuidString)")

  private let store: ModelStore

  init() throws {
    store = try ModelStore(root: folder)
    try Data("model".utf8).write(to: folder.appendingPathComponent(FakeModel.sha256))
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  func make(_ settings: AgentSettings, probe: any DeviceProbe, port: UInt16) -> AgentServer {
    made.append(settings)
    let server = AgentServer(
      AgentConfig(
        agent: AgentInfo(name: "test", version: "1"), token: "t", port: port, store: store,
        runtimes: runtimes,
        probe: probe, allowed: settings.allowed, keepWarm: settings.keepWarm))
    all.append(server)
    return server
  }

  /// Where the last server listens.
  func port() async throws -> UInt16 { try await all[all.count - 1].start() }

  func stop() async {
    for server in all { await server.stop() }
  }
}

/// A phone in a state of one's choice.
struct FakeProbe: DeviceProbe {
  private let foreground: Foreground
  private let lowPowerMode: Bool

  init(_ foreground: Foreground, lowPowerMode: Bool = false) {
    self.foreground = foreground
    self.lowPowerMode = lowPowerMode
  }

  func describe() -> DeviceInfo {
    DeviceInfo(model: "iPhone14,5", os: "iOS 17.5", osBuild: nil, soc: nil, cores: 1, memoryBytes: 1)
  }

  func read() async -> DeviceReading {
    var state = DeviceState(uptimeNanoseconds: 1)
    state.lowPowerMode = lowPowerMode
    state.foreground = foreground.isActive
    return DeviceReading(state: state, isDebuggable: false, foregroundLosses: foreground.losses)
  }
}

/// Loads `FakeModel`s.
struct FakeRuntime: Runtime {
  let name = "fake"
  /// What happens while a model runs.
  let onExecute: @Sendable () -> Void

  func describe() -> RuntimeInfo { RuntimeInfo(version: "1", backends: [], options: [:]) }

  func load(
    _ model: StoredModel, options: LoadOptions, session: isolated any Actor
  ) async throws -> LoadedModel {
    LoadedModel(model: FakeModel(onExecute: onExecute), loadNanoseconds: 1, options: [:])
  }
}

/// A model without inputs and outputs; its file holds `model`.
final class FakeModel: Model {
  static let sha256 = "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"

  let inputs: [TensorSpec] = []
  let outputs: [TensorSpec] = []
  private let onExecute: @Sendable () -> Void

  init(onExecute: @escaping @Sendable () -> Void) { self.onExecute = onExecute }

  func prepare(_ tensors: [Tensor]) {}
  func setInputs() {}
  func execute() { onExecute() }
  func readOutputs() -> [Tensor] { [] }
  func close() {}
}

/// Writes a bundle of one batch of `FakeModel`s, with so many runs of a round each.
func writeBundle(runs: Int, to file: URL) throws {
  let order = Array(repeating: "[[0, 1]]", count: runs).joined(separator: ", ")
  let script = """
    {"rules": {"attempts": 1, "deaths": 1, "poll_s": 1, "wait_s": 1, "cool_s": 0, "hot_headroom": 1,
    "cool_headroom": 1}, "load": {"runtime": "fake", "options": {}}, "run": {"warmup": 0}, "batches": [{
    "pass_index": 0, "group": 0, "slots": ["\(FakeModel.sha256)", "\(FakeModel.sha256)"], "loading": [0, 1],
    "orders": [\(order)], "placement": false}]}
    """
  let texts = ["plan.json": "{}", "script.json": script, "models/\(FakeModel.sha256)": "model"]
  let files = texts.map { name, text in
    var hash = ContentHash()
    Array(text.utf8).withUnsafeBytes { hash.update($0) }
    return "\"\(name)\": {\"bytes\": \(text.utf8.count), \"sha256\": \"\(hash.finish())\"}"
  }
  let manifest =
    "{\"format\": 1, \"protocol\": 1, \"device_kind\": \"iphone\", \"files\": {\(files.joined(separator: ", "))}}"
  var tar = Data()
  for (name, text) in [("manifest.json", manifest)] + texts.map({ ($0.key, $0.value) }) {
    var header = Data(count: 512)
    header.replaceSubrange(0..<name.utf8.count, with: Data(name.utf8))
    let size = String(text.utf8.count, radix: 8)
    header.replaceSubrange(124..<124 + size.utf8.count, with: Data(size.utf8))
    let padding = (512 - text.utf8.count % 512) % 512
    tar += header + Data(text.utf8) + Data(count: padding)
  }
  try (tar + Data(count: 1024)).write(to: file)
}

/// A client of the agent, on the loopback. It blocks, and so has a thread of its own.
actor Client {
  private let executor = ThreadExecutor(name: "client")
  private let connection: Connection
  private var lastID = 0

  /// Connects to `port`; says nothing yet.
  init(port: UInt16) throws {
    connection = Connection(socket: try connectLoopback(port), timeoutSeconds: 20)
  }

  deinit { executor.stop() }

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  /// The reply's header and payload.
  func exchange(
    _ op: String, _ fields: KeyValuePairs<String, JSON> = [:], payload: [UInt8] = []
  ) throws -> (header: JSON, payload: [UInt8]) {
    lastID += 1
    let header =
      [JSON.Field("id", .integer(lastID)), .init("op", .string(op))] + fields.map { .init($0.key, $0.value) }
    try connection.write(try Frame.encode(header, payloadBytes: payload.count) + payload)
    guard let frame = try Frame.read(from: connection) else { throw CocoaError(.fileReadUnknown) }
    return (frame.header, try frame.payload.read())
  }

  /// The reply's header.
  func request(_ op: String, _ fields: KeyValuePairs<String, JSON> = [:]) throws -> JSON {
    try exchange(op, fields).header
  }

  func hello() throws -> JSON { try request("hello", ["protocol": .integer(1), "token": .string("t")]) }

  /// Loads the fake model and times it in `rounds` rounds of one visit.
  func measure(rounds: Int) throws -> JSON {
    let loaded = try request(
      "load", ["sha256": .string(FakeModel.sha256), "runtime": .string("fake"), "options": .object([])])
    return try request(
      "run",
      [
        "handles": .array([loaded["handle"] ?? .null]),
        "order": .array(Array(repeating: .array([.integer(0)]), count: rounds)), "warmup": .integer(0),
      ])
  }

  func leave() throws { _ = try request("bye") }
}

#if os(Linux)
  /// Makes the socket that listens on `port` unusable, as iOS does with those of suspended apps.
  ///
  /// Its descriptor may be above 2,000: other tests hold a thousand connections, with both ends in this process.
  func breakListener(on port: UInt16) throws {
    for descriptor in Int32(0)..<65_536 {
      var listens: Int32 = 0
      var size = socklen_t(MemoryLayout<Int32>.size)
      guard getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0, listens != 0 else {
        continue
      }
      guard (try? Listener.boundPort(of: descriptor)) == port else { continue }
      guard shutdown(descriptor, Int32(SHUT_RD)) == 0 else { throw CocoaError(.fileWriteUnknown) }
      return
    }
    throw CocoaError(.fileNoSuchFile)
  }
#endif
