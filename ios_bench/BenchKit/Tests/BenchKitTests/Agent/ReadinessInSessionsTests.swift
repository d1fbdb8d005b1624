import BenchKit
import Testing

/// The clients block, so that every test runs on a thread of its own.
@Suite("Readiness in sessions")
actor ReadinessInSessionsTests {
  private let executor = ThreadExecutor(name: "client")
  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  deinit { executor.stop() }

  private static let hot: DeviceReading = {
    var reading = ScriptedProbe.fine
    reading.state.thermalState = .serious
    return reading
  }()

  private func run(_ agent: TestAgent) throws -> JSON {
    let client = try agent.greeted()
    let handle = try #require(try client.load("doubler")["handle"])
    let order = JSON.array([.array([.integer(0)])])
    let reply = try client.ask("run", ["handles": .array([handle]), "order": order, "warmup": .integer(0)])
    #expect(try client.ask("state")["error"] == nil, "the session goes on")
    return reply
  }

  @Test("A device that throttles is not measured")
  func before() async throws {
    let agent = try await TestAgent(probe: ScriptedProbe([Self.hot]))
    let reply = try run(agent)
    #expect(reply.errorCode == "not_ready")
    #expect(reply.errorMessage?.contains("throttled") == true)
    await agent.server.stop()
  }

  @Test("A device that comes to throttle during a run gives no samples")
  func after() async throws {
    let agent = try await TestAgent(probe: ScriptedProbe([ScriptedProbe.fine, Self.hot]))
    let reply = try run(agent)
    #expect(reply.errorCode == "not_ready")
    #expect(reply.errorMessage?.contains("at the end of the run") == true)
    await agent.server.stop()
  }

  @Test("An app that was in the background during a run gives no samples")
  func interrupted() async throws {
    var back = ScriptedProbe.fine
    back.state.foreground = true
    back.foregroundLosses = 1
    let agent = try await TestAgent(probe: ScriptedProbe([ScriptedProbe.fine, back]))
    #expect(try run(agent).errorMessage?.contains("background") == true)
    await agent.server.stop()
  }

  @Test("What is allowed is measured, and told in every state")
  func allowed() async throws {
    let agent = try await TestAgent(probe: ScriptedProbe([Self.hot]), allowed: [.throttled, .lowBattery])
    let reply = try run(agent)
    let told = JSON.array([.string("throttled")])
    #expect(reply["state_before"]?["caveats"] == told)
    #expect(reply["state_after"]?["caveats"] == told)
    #expect(reply["state_after"]?["thermal_state"] == .string("serious"))
    #expect(try agent.greeted().ask("state")["state"]?["caveats"] == told)
    await agent.server.stop()
  }
}
