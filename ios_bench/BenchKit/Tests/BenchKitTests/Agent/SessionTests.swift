import BenchKit
import Foundation
import Testing

/// The clients block, so that every test runs on a thread of its own.
@Suite("Sessions")
actor SessionTests {
  private let executor = ThreadExecutor(name: "client")
  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  deinit { executor.stop() }

  private let sha256 = JSON.string(String(repeating: "0", count: 64))

  @Test("hello tells agent, device and runtimes; again it is answered as before")
  func hello() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    let reply = try client.ask("hello", ["protocol": .integer(1), "token": .string(TestAgent.token)])
    #expect(reply["protocol"] == .integer(1))
    #expect(reply["agent"]?["name"] == .string("blocktime-test"))
    #expect(reply["device"]?["model"] == .string("Testphone"))
    #expect(reply["device"]?["soc"] == .null)
    #expect(reply["runtimes"]?["doubler"]?["options"]?["threads"]?["max"] == .integer(4))
    await agent.server.stop()
  }

  @Test(
    "A wrong token, another op or a broken first hello ends the connection, and the next client is served")
  func unauthorized() async throws {
    let agent = try await TestAgent()
    let wrong: [(String, KeyValuePairs<String, JSON>, String)] = [
      ("hello", ["protocol": .integer(1), "token": .string("a-tokem")], "unauthorized"),
      ("hello", ["protocol": .integer(2), "token": .string("a-tokem")], "unauthorized"),
      ("hello", ["protocol": .integer(2), "token": .string(TestAgent.token)], "protocol_version"),
      ("hello", ["protocol": .integer(1)], "bad_request"),
      ("state", [:], "unauthorized"),
      ("nonsense", [:], "unauthorized"),
    ]
    for (op, fields, code) in wrong {
      let client = try agent.connect()
      #expect(try client.refusal(op, fields) == code)
      #expect(try client.receive() == nil)
    }
    #expect(try agent.greeted().ask("state")["state"] != nil)
    await agent.server.stop()
  }

  @Test("A wrong token in a later hello ends the connection")
  func laterHello() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    #expect(try client.refusal("hello", ["protocol": .integer(1), "token": .string("x")]) == "unauthorized")
    #expect(try client.receive() == nil)
    await agent.server.stop()
  }

  @Test("A client that says nothing is sent away")
  func silent() async throws {
    var timeouts = Timeouts()
    timeouts.helloSeconds = 0.05
    let agent = try await TestAgent(timeouts: timeouts)
    let client = try agent.connect()
    #expect(try client.receive()?.header.errorCode == "timeout")
    #expect(try client.receive() == nil)
    await agent.server.stop()
  }

  @Test("A frame that stands still ends the connection")
  func standsStill() async throws {
    var timeouts = Timeouts()
    timeouts.frameSeconds = 0.05
    let agent = try await TestAgent(timeouts: timeouts)
    let client = try agent.greeted()
    try client.connection.write([0, 0])
    #expect(try client.receive()?.header.errorCode == "timeout")
    #expect(try client.receive() == nil)
    await agent.server.stop()
  }

  @Test("A broken frame is told and ends the connection")
  func brokenFrame() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    try client.connection.write(Array("GET / HTTP/1.1\r\n\r\n".utf8))
    let reply = try #require(try client.receive())
    #expect(reply.header.errorCode == "header_too_large")
    #expect(reply.header["id"] == .null)
    #expect(try client.receive() == nil)
    await agent.server.stop()
  }

  @Test("Another client waits for the place, then is told that it is taken")
  func busy() async throws {
    var timeouts = Timeouts()
    timeouts.handoverSeconds = 0.05
    let agent = try await TestAgent(timeouts: timeouts)
    let first = try agent.greeted()
    for token in [TestAgent.token, "wrong"] {
      let second = try agent.connect()
      #expect(
        try second.refusal("hello", ["protocol": .integer(1), "token": .string(token)]) == "busy")
      #expect(try second.receive() == nil)
    }
    #expect(try first.ask("state")["state"] != nil)
    await agent.server.stop()
  }

  @Test("A client that comes while another leaves is served")
  func handover() async throws {
    let agent = try await TestAgent()
    for _ in 0..<20 { #expect(try agent.greeted().ask("bye")["error"] == nil) }
    await agent.server.stop()
  }

  @Test("bye is answered, then the agent closes")
  func bye() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    #expect(try client.ask("bye") == .object(["id": .integer(2)]))
    #expect(try client.receive() == nil)
    await agent.server.stop()
  }

  @Test("Requests that break their schema are refused and the connection goes on")
  func badRequests() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    #expect(try client.refusal("nonsense") == "unknown_op")
    #expect(try client.refusal("state", ["more": .null]) == "bad_request")
    #expect(try client.refusal("state", payload: [1, 2, 3]) == "bad_request")
    #expect(try client.refusal("have", ["sha256": .string("x")]) == "bad_request")
    #expect(try client.refusal("put", ["sha256": sha256]) == "bad_request")
    #expect(try client.refusal("unload", ["handle": .number(1)]) == "bad_request")
    try client.connection.write(try Frame.encode([.init("op", .string("state"))]))
    let reply = try #require(try client.receive())
    #expect(reply.header["id"] == .null)
    #expect(reply.header.errorCode == "bad_request")
    #expect(try client.ask("state")["state"] != nil)
    await agent.server.stop()
  }

  @Test("Models are stored, loaded, checked and unloaded")
  func models() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    let stored = JSON.string(hash(Array("doubler".utf8)))
    #expect(try client.ask("have", ["sha256": stored])["present"] == .bool(false))
    let loaded = try client.load("doubler")
    #expect(try client.ask("have", ["sha256": stored])["present"] == .bool(true))
    #expect(loaded["handle"] == .integer(1))
    #expect(loaded["load_ns"] == .integer(7))
    #expect(loaded["compile_ns"] == .integer(5))
    #expect(loaded["cached"] == .bool(false))
    #expect(loaded["input_buffers"] == .string("iosurface"))
    #expect(loaded["options"] == .object(["threads": .integer(1)]))
    #expect(loaded["delegates"] == .array([.object(["backend": .string("Cpu"), "count": .integer(1)])]))
    #expect(loaded["placement"]?["neural_engine"] == .integer(1))

    let spec = JSON.object(["dtype": .string("float32"), "shape": .array([.integer(1), .integer(2)])])
    let input = littleEndianBytes([1.5, -2])
    let fields: KeyValuePairs<String, JSON> = ["handle": .integer(1), "inputs": .array([spec])]
    let checked = try client.exchange("check", fields, payload: input)
    #expect(checked.header["outputs"] == .array([spec]))
    #expect(checked.payload == littleEndianBytes([3, -4]))
    #expect(try client.refusal("check", fields, payload: [1]) == "bad_input")
    #expect(try client.refusal("check", ["handle": .integer(1), "inputs": .array([])]) == "bad_input")

    #expect(try client.ask("unload", ["handle": .integer(1)])["error"] == nil)
    #expect(try client.refusal("check", fields, payload: input) == "unknown_handle")
    #expect(try client.load("doubler", ["threads": .integer(2)])["handle"] == .integer(2))
    await agent.server.stop()
  }

  @Test("Loads that can't be are refused with their reason")
  func badLoads() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    #expect(try client.load("no model").errorCode == "bad_model")
    #expect(try client.load("doubler", ["speed": .string("high")]).errorCode == "bad_option")
    #expect(try client.refusal("load", ["sha256": sha256, "runtime": .string("doubler")]) == "unknown_model")
    #expect(try client.refusal("load", ["sha256": sha256, "runtime": .string("other")]) == "unknown_runtime")
    for _ in 0..<Limits.handles { #expect(try client.load("doubler")["error"] == nil) }
    #expect(try client.load("doubler").errorCode == "too_many_handles")
    await agent.server.stop()
  }

  @Test("A put of other bytes, or of too many, is refused, and its payload taken off")
  func badPuts() async throws {
    let agent = try await TestAgent(maxBytes: 1000)
    let client = try agent.greeted()
    #expect(try client.refusal("put", ["sha256": sha256], payload: [1, 2]) == "hash_mismatch")
    let big = [UInt8](repeating: 1, count: 300_000)
    #expect(try client.refusal("put", ["sha256": .string(hash(big))], payload: big) == "storage_full")
    #expect(try client.load("doubler")["error"] == nil)
    await agent.server.stop()
  }

  @Test("A run answers a sample a visit, in big-endian nanoseconds")
  func run() async throws {
    let agent = try await TestAgent(keepWarm: true)
    let client = try agent.greeted()
    let handles = try ["doubler", "doubler 3"].map { try #require(try client.load($0)["handle"]) }
    let order = [[0, 1, 1], [1, 0, 1]].map { JSON.array($0.map(JSON.integer)) }
    let fields: KeyValuePairs<String, JSON> = [
      "handles": .array(handles), "order": .array(order), "warmup": .integer(1),
    ]
    let reply = try client.exchange("run", fields)
    #expect(reply.header["rounds"] == .integer(2))
    #expect(reply.header["visits"] == .integer(3))
    #expect(reply.header["state_before"]?["keep_warm"] == .bool(true))
    let asked = try client.exchange(
      "run",
      [
        "handles": .array(handles), "order": .array(order), "warmup": .integer(1), "keep_warm": .bool(false),
      ])
    #expect(asked.header["state_before"]?["keep_warm"] == .bool(false))
    #expect(try client.ask("state")["state"]?["keep_warm"] == .bool(true), "as its user has it")
    #expect(reply.header["state_after"]?["caveats"] == .array([]))
    #expect(reply.payload.count == 2 * 3 * 8)
    for start in stride(from: 0, to: reply.payload.count, by: 8) {
      let nanoseconds = reply.payload[start..<start + 8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      #expect(nanoseconds > 0 && nanoseconds < 1 << 56)
    }
    await agent.server.stop()
  }

  @Test("A run warms up by time where it is asked to")
  func warmed() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    let handle = try #require(try client.load("doubler")["handle"])
    let order = JSON.array([.array([.integer(0)])])
    func run(_ milliseconds: Int) throws -> JSON {
      try client.ask(
        "run",
        [
          "handles": .array([handle]), "order": order, "warmup": .integer(0),
          "warmup_ms": .integer(milliseconds),
        ])
    }
    #expect(try run(0)["warmed"] == nil)
    let warmed = try #require(try run(1)["warmed"])
    #expect(warmed["steady"] == .bool(false))
    #expect(warmed["ns"]!.int! >= 1_000_000)
    #expect(warmed["rounds"]!.int! >= 1)
    #expect(try run(60_001).errorCode == "bad_request")
    await agent.server.stop()
  }

  @Test(
    "Orders that can't be are refused",
    arguments: [[[]], [[0], [0, 0]], [[1]], [[256]], [[-1]], []] as [[[Int]]])
  func badOrders(order: [[Int]]) async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    let handle = try #require(try client.load("doubler")["handle"])
    let rounds = JSON.array(order.map { .array($0.map(JSON.integer)) })
    #expect(
      try client.refusal("run", ["handles": .array([handle]), "order": rounds, "warmup": .integer(0)])
        == "bad_request")
    await agent.server.stop()
  }

  @Test("A schedule of more visits than allowed is refused")
  func tooManyVisits() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    let handle = try #require(try client.load("doubler")["handle"])
    let round = JSON.array([JSON](repeating: .integer(0), count: 1001))
    let order = JSON.array([JSON](repeating: round, count: 200))
    let fields: KeyValuePairs<String, JSON> = [
      "handles": .array([handle]), "order": order, "warmup": .integer(0),
    ]
    #expect(try client.refusal("run", fields) == "bad_request")
    await agent.server.stop()
  }

  @Test("A model that fails while it runs is told on one line, and the session goes on")
  func runFailed() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    let handle = try #require(try client.load("broken")["handle"])
    let order = JSON.array([.array([.integer(0)])])
    let fields: KeyValuePairs<String, JSON> = [
      "handles": .array([handle]), "order": order, "warmup": .integer(0),
    ]
    let reply = try client.ask("run", fields)
    #expect(reply.errorCode == "run_failed")
    #expect(reply.errorMessage == "the runtime failed: it broke while executing")
    #expect(try client.ask("state")["state"] != nil)
    await agent.server.stop()
  }
}
