import BenchKit
import Testing

/// The clients block, so that every test runs on a thread of its own.
@Suite("ConnectionQueue")
actor ConnectionQueueTests {
  private let executor = ThreadExecutor(name: "client")
  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  deinit { executor.stop() }

  private static let strangers = Limits.waiting + 36
  private static let hello: [JSON.Field] = [
    .init("id", .integer(7)), .init("op", .string("hello")), .init("protocol", .integer(1)),
    .init("token", .string(TestAgent.token)),
  ]

  /// An agent whose clients may wait for longer than a test runs.
  private func patientAgent() async throws -> TestAgent {
    var timeouts = Timeouts()
    timeouts.helloSeconds = 600
    timeouts.handoverSeconds = 600
    return try await TestAgent(timeouts: timeouts)
  }

  @Test("The strangers that have waited longest are driven out; who holds the token is not")
  func drivenOut() async throws {
    let agent = try await patientAgent()
    let first = try agent.greeted()
    let next = try agent.connect()
    try next.connection.write(try Frame.encode(Self.hello))
    let strangers = try (0..<Self.strangers).map { _ in try agent.connect() }
    for stranger in strangers.prefix(Self.strangers - Limits.waiting + 1) {
      #expect((try? stranger.receive()) == nil)
    }
    #expect(try first.ask("bye")["error"] == nil)
    let reply = try #require(try next.receive())
    #expect(reply.header["id"] == .integer(7))
    #expect(reply.header["error"] == nil)
    #expect(try strangers.last?.connection.waitForInput(seconds: 0) == false)
    await agent.server.stop()
  }

  @Test("A hello may come in pieces, and nothing behind it is lost")
  func pieces() async throws {
    let agent = try await patientAgent()
    let client = try agent.connect()
    let state: [JSON.Field] = [.init("id", .integer(8)), .init("op", .string("state"))]
    for byte in try Frame.encode(Self.hello) + Frame.encode(state) { try client.connection.write([byte]) }
    for id in [7, 8] { #expect(try client.receive()?.header["id"] == .integer(id)) }
    await agent.server.stop()
  }

  @Test("A hello of more bytes than allowed is refused before it is there")
  func tooLong() async throws {
    let agent = try await patientAgent()
    let client = try agent.connect()
    try client.connection.write([0, 0, 16, 1])
    #expect(try client.receive()?.header.errorCode == "header_too_large")
    #expect(try client.receive() == nil)
    await agent.server.stop()
  }
}
