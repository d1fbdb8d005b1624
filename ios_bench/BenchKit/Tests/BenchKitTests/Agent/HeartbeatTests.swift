import BenchKit
import Foundation
import Testing

/// The client blocks, so that every test runs on a thread of its own.
@Suite("Signs of life beside a load")
actor HeartbeatTests {
  private let executor = ThreadExecutor(name: "client")
  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  deinit { executor.stop() }

  @Test("A load that takes long gives signs of life, and none after its reply")
  func whileLoading() async throws {
    let (compiled, compiling) = AsyncStream.makeStream(of: Never.self)
    var runtime = DoublerRuntime()
    runtime.loading = { for await _ in compiled {} }
    let agent = try await TestAgent(runtime: runtime)
    let client = try agent.greeted()
    let sha256 = try client.put("doubler")
    let load: KeyValuePairs<String, JSON> = [
      "id": .integer(9), "op": .string("load"), "sha256": .string(sha256), "runtime": .string("doubler"),
      "placement": .bool(false), "heartbeat_s": .integer(1),
    ]
    try client.connection.write(try Frame.encode(load.map { .init($0, $1) }, payloadBytes: 0))
    let sign = try #require(try client.receive()?.header)
    #expect(sign["running"] == .integer(0))
    #expect(sign["id"] == .integer(9))
    compiling.finish()
    var reply = sign
    while reply["running"] != nil { reply = try #require(try client.receive()?.header) }
    #expect(reply["placement"] == .null)
    let handle = try #require(reply["handle"])
    let placement = try client.ask("placement", ["handle": handle, "heartbeat_s": .integer(600)])["placement"]
    #expect(placement?["neural_engine"] == .integer(1))
    #expect(try client.refusal("placement", ["handle": .integer(99)]) == "unknown_handle")
    await agent.server.stop()
  }

  @Test("hello tells which ops give them")
  func told() async throws {
    let agent = try await TestAgent()
    let reply = try agent.greeted().ask(
      "hello", ["protocol": .integer(1), "token": .string(TestAgent.token)])
    #expect(reply["heartbeat_ops"] == .array([.string("load"), .string("placement")]))
    await agent.server.stop()
  }
}
