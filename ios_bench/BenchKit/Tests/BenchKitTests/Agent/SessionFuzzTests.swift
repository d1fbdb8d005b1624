import BenchKit
import Testing

/// Seeded, so that a failure can be repeated. The clients block, so that every test runs on a thread of its own.
@Suite("Fuzzed sessions")
actor SessionFuzzTests {
  private let executor = ThreadExecutor(name: "client")
  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  deinit { executor.stop() }

  @Test("Sessions survive mutated requests, and the next client is served", arguments: 0..<2)
  func sessions(seed: UInt64) async throws {
    var random = SplitMix(seed: 100 + seed)
    var timeouts = Timeouts()
    timeouts.frameSeconds = 0.1
    let agent = try await TestAgent(timeouts: timeouts)
    let requests = Golden.requests.map(\.bytes)
    for _ in 0..<60 {
      let client = try agent.greeted()
      _ = try client.load("doubler")
      for _ in 0..<3 {
        let bytes = mutate(requests.randomElement(using: &random)!, &random)
        guard (try? client.connection.write(bytes)) != nil else { break }
      }
      client.connection.cutOff()
    }
    #expect(try agent.greeted().load("doubler")["handle"] == .integer(1))
    await agent.server.stop()
  }
}
