import BenchApp
import BenchKit
import Fixtures
import Foundation
import Testing

/// The agent as it runs on a phone, but for the phone: a stand-in for Core ML, and a probe that makes things up.
@Suite("Agent of an iPhone", .timeLimit(.minutes(1)))
@MainActor
final class PhoneAgentTests {
  private let foreground = Foreground()
  private let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
    "phone-\(UUID().uuidString)")
  private let model: AgentModel
  private let port: HeldPort

  init() throws {
    port = try HeldPort()
    model = try PhoneAgent.makeModel(
      launch: Launch(environment: ["BLOCKTIME_TOKEN": "t"]), probe: FakeProbe(foreground),
      foreground: foreground,
      caches: folder,
      system: "iOS 17.5 (21F79)", version: "0.1.0+digest", port: port.number, freeMemoryBytes: { nil })
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  @Test(
    "A Core ML package is sent, compiled, loaded, checked and timed; a later load finds it compiled",
    .enabled(if: standsInForCoreML, "the real Core ML takes no models that are JSON"))
  func wholeWay() async throws {
    let client = try await connected()
    let hello = try await client.hello()
    #expect(hello["agent"]?["name"] == .string("blocktime-ios"))
    #expect(hello["agent"]?["version"] == .string("0.1.0+digest"))
    #expect(hello["runtimes"]?["coreml"]?["version"] == .string("iOS 17.5 (21F79)"))
    #expect(hello["runtimes"]?["executorch"]?["version"] != nil)

    let sha256 = try await put(package, client)
    let loaded = try await load(sha256, "cpuandneuralengine", client)
    #expect(loaded["cached"] == .bool(false))
    #expect(loaded["compile_ns"] != nil)
    let placement = try #require(loaded["placement"])
    #expect(
      ["cpu", "gpu", "neural_engine"].map { placement[$0] } == [.integer(1), .integer(0), .integer(1)])
    #expect(
      placement["operations"]
        == .array([
          .object([
            "name": .string("y"), "type": .string("ios16.conv"), "unit": .string("neural_engine"),
            "cost": .number(0.75),
          ]),
          .object([
            "name": .string("z"), "type": .string("ios16.softmax"), "unit": .string("cpu"),
            "cost": .number(0.25),
          ]),
        ]))

    let handle = try #require(loaded["handle"])
    let spec = try #require(loaded["inputs"])
    let checked = try await client.exchange(
      "check", ["handle": handle, "inputs": spec], payload: [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40])
    #expect(checked.header["outputs"] == loaded["outputs"])
    #expect(checked.payload == [0, 0, 0x40, 0x40], "1 + 2 = 3")

    let timed = try await client.exchange(
      "run",
      [
        "handles": .array([handle]), "order": .array([.array([.integer(0)]), .array([.integer(0)])]),
        "warmup": .integer(1),
      ])
    #expect(timed.header["error"] == nil)
    #expect(timed.payload.count == 16)

    let again = try await load(sha256, "cpuandneuralengine", client)
    #expect(again["cached"] == .bool(true))
    #expect(again["compile_ns"] == nil)
    #expect(again["placement"] == placement)
    try await client.leave()
  }

  @Test("What is not a package is refused, and the connection goes on")
  func refused() async throws {
    let client = try await connected()
    _ = try await client.hello()
    let sha256 = try await put(ZipWriter(entries: [.init(name: "../up")]).archive(), client)
    let reply = try await load(sha256, "all", client)
    #expect(reply["error"]?["code"] == .string("bad_model"))
    #expect(try await client.request("have", ["sha256": .string(sha256)])["present"] == .bool(true))
    try await client.leave()
  }

  private let package = ZipWriter.package([
    "Manifest.json": "{}",
    "Data/com.apple.CoreML/model.mlmodel": """
    {"inputs": [{"name": "input_0", "shape": [2], "dtype": "float32"}],
     "outputs": [{"name": "output_0", "shape": [1], "dtype": "float32"}],
     "plan": [{"name": "w", "type": "const", "unit": {"*": "cpu"}},
              {"name": "y", "type": "ios16.conv", "unit": {"*": "neural_engine"}, "cost": 0.75},
              {"name": "z", "type": "ios16.softmax", "unit": {"*": "cpu"}, "cost": 0.25}]}
    """,
  ]).archive()

  private func connected() async throws -> Client {
    await model.phaseChanged(isActive: true).value
    return try Client(port: port.number)
  }

  private func put(_ archive: Data, _ client: Client) async throws -> String {
    var hash = ContentHash()
    archive.withUnsafeBytes { hash.update($0) }
    let sha256 = hash.finish()
    let reply = try await client.exchange("put", ["sha256": .string(sha256)], payload: Array(archive))
    #expect(reply.header["bytes"] == .integer(archive.count))
    return sha256
  }

  private func load(_ sha256: String, _ units: String, _ client: Client) async throws -> JSON {
    try await client.request(
      "load",
      [
        "sha256": .string(sha256), "runtime": .string("coreml"),
        "options": .object(["compute_units": .string(units)]),
      ])
  }
}
