import BenchKit
import Fixtures
import Testing

/// The clients block, so that every test runs on a thread of its own.
@Suite("Agent server")
actor AgentServerTests {
  private let executor = ThreadExecutor(name: "client")
  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  deinit { executor.stop() }

  private func config(port: UInt16, _ folder: TemporaryFolder) throws -> AgentConfig {
    AgentConfig(
      agent: AgentInfo(name: "blocktime-test", version: "1"), token: TestAgent.token, port: port,
      store: try ModelStore(root: folder.url), runtimes: [DoublerRuntime()], probe: ScriptedProbe())
  }

  @Test("A port in use is told")
  func portInUse() async throws {
    let agent = try await TestAgent()
    let folder = TemporaryFolder()
    let second = AgentServer(try config(port: agent.port, folder))
    await #expect(throws: ListenError.self) { try await second.start() }
    await agent.server.stop()
  }

  @Test("Stopping cuts off the client and frees the port; the server can be started again")
  func restart() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    await agent.server.stop()
    #expect((try? client.receive()) == nil)
    #expect(throws: (any Error).self) { try agent.connect() }
    let port = try await agent.server.start()
    #expect(try await agent.server.start() == port)
    let again = try TestClient(port: port)
    #expect(
      try again.ask("hello", ["protocol": .integer(1), "token": .string(TestAgent.token)])["error"] == nil)
    await agent.server.stop()
    await agent.server.stop()
  }

  @Test("The port is free again as soon as the server has stopped")
  func fixedPort() async throws {
    let folder = TemporaryFolder()
    let port = try HeldPort()
    let server = AgentServer(try config(port: port.number, folder))
    for _ in 0..<20 {
      #expect(try await server.start() == port.number)
      let client = try TestClient(port: port.number)
      #expect(try client.refusal("state") == "unauthorized")
      await server.stop()
    }
  }

  @Test("Stopping ends a run after the round in progress")
  func stopDuringRun() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    let handle = try #require(try client.load("doubler 4000")["handle"])
    let order = JSON.array([JSON](repeating: .array([.integer(0)]), count: 200_000))
    try client.connection.write(
      try Frame.encode([
        .init("id", .integer(9)), .init("op", .string("run")), .init("handles", .array([handle])),
        .init("order", order), .init("warmup", .integer(1000)),
      ]))
    await agent.server.stop()
    #expect((try? client.receive())?.header["rounds"] == nil)
  }

  @Test("A client that vanishes leaves its models unloaded and its place free", arguments: [0, 1, 2, 3])
  func vanishing(moment: Int) async throws {
    let agent = try await TestAgent()
    do {
      let client = try agent.greeted()
      _ = try client.load("doubler")
      switch moment {
      case 0: break
      case 1: try client.connection.write([0, 0, 1])
      case 2: try client.connection.write(try Frame.encode([.init("op", .string("put"))], payloadBytes: 1000))
      default: client.connection.cutOff()
      }
    }
    let next = try agent.greeted()
    #expect(try next.load("doubler")["handle"] == .integer(1))
    await agent.server.stop()
  }

  @Test("What the agent does is told as events")
  func events() async throws {
    let agent = try await TestAgent()
    let client = try agent.greeted()
    let sha256 = hash(Array("doubler".utf8))
    let handle = try #require(try client.load("doubler")["handle"])
    let order = JSON.array([.array([.integer(0), .integer(0)])])
    _ = try client.ask("run", ["handles": .array([handle]), "order": order, "warmup": .integer(0)])
    #expect(try client.refusal("nonsense") == "unknown_op")
    _ = try client.ask("bye")
    await agent.server.stop()
    var events: [AgentEvent] = []
    for await event in agent.server.events {
      events.append(event)
      if case .stopped = event { break }
    }
    #expect(events.first == .listening(port: agent.port))
    #expect(events.contains(.connected))
    #expect(
      events.filter { if case .working = $0 { true } else { false } }.count == 2, "receiving and loading")
    #expect(events.contains(.working("loading model \(sha256.prefix(12)) with doubler, then timing")))
    let results = events.compactMap { if case .measured(let result) = $0 { result } else { nil } }
    #expect(results.count == 1)
    #expect(results.first?.rounds == 1)
    #expect(results.first?.entries.map(\.sha256) == [sha256])
    #expect(results.first?.entries.map(\.visits) == [2])
    #expect(events.contains { if case .refused(.unknownOp, _) = $0 { true } else { false } })
    #expect(events.suffix(2) == [.disconnected, .stopped(reason: nil)])
  }
}
