import BenchKit
import Fixtures
import Testing

/// An agent on a free port, with a runtime made of arithmetic.
final class TestAgent: Sendable {
  static let token = "a-token"
  let folder = TemporaryFolder()
  let server: AgentServer
  let port: UInt16

  init(
    probe: ScriptedProbe = ScriptedProbe(), allowed: Set<Caveat> = [], keepWarm: Bool = false,
    maxBytes: Int = 1 << 20, timeouts: Timeouts = Timeouts(), runtime: DoublerRuntime = DoublerRuntime()
  ) async throws {
    server = AgentServer(
      AgentConfig(
        agent: AgentInfo(name: "blocktime-test", version: "1"), token: Self.token, port: 0,
        store: try ModelStore(root: folder.url, maxBytes: maxBytes), runtimes: [runtime],
        probe: probe,
        allowed: allowed, keepWarm: keepWarm, timeouts: timeouts))
    port = try await server.start()
  }

  func connect() throws -> TestClient { try TestClient(port: port) }

  /// A client that has said hello.
  func greeted() throws -> TestClient {
    let client = try connect()
    let reply = try client.ask("hello", ["protocol": .integer(1), "token": .string(Self.token)])
    #expect(reply["error"] == nil)
    return client
  }
}

/// The other end of an agent's connection.
final class TestClient {
  let connection: Connection
  private var lastId = 0

  init(port: UInt16) throws {
    connection = Connection(socket: try connectLoopback(port), timeoutSeconds: 20)
  }

  /// The reply to a request, with its payload.
  func exchange(
    _ op: String, _ fields: KeyValuePairs<String, JSON> = [:], payload: [UInt8] = []
  ) throws -> (header: JSON, payload: [UInt8]) {
    lastId += 1
    let header =
      [JSON.Field("id", .integer(lastId)), .init("op", .string(op))] + fields.map { .init($0, $1) }
    try connection.write(try Frame.encode(header, payloadBytes: payload.count) + payload)
    let reply = try #require(try receive())
    #expect(reply.header["id"] == .integer(lastId))
    return reply
  }

  func ask(
    _ op: String, _ fields: KeyValuePairs<String, JSON> = [:], payload: [UInt8] = []
  ) throws -> JSON {
    try exchange(op, fields, payload: payload).header
  }

  /// The code of the error that the agent answers.
  func refusal(_ op: String, _ fields: KeyValuePairs<String, JSON> = [:], payload: [UInt8] = []) throws
    -> String?
  {
    try ask(op, fields, payload: payload).errorCode
  }

  /// Stores a model and loads it; the reply to the load.
  func load(_ text: String, _ options: KeyValuePairs<String, JSON> = [:]) throws -> JSON {
    let sha256 = try put(text)
    return try ask(
      "load", ["sha256": .string(sha256), "runtime": .string("doubler"), "options": .object(options)])
  }

  @discardableResult
  func put(_ text: String) throws -> String {
    let bytes = Array(text.utf8)
    let sha256 = hash(bytes)
    let reply = try ask("put", ["sha256": .string(sha256)], payload: bytes)
    #expect(reply["bytes"] == .integer(bytes.count))
    return sha256
  }

  /// The next frame; nil where the agent has closed.
  func receive() throws -> (header: JSON, payload: [UInt8])? {
    guard let frame = try Frame.read(from: connection) else { return nil }
    let payload = try frame.payload.read()
    return (frame.header, payload)
  }
}

extension JSON {
  var errorCode: String? { self["error"]?["code"]?.text }
  var errorMessage: String? { self["error"]?["message"]?.text }
}

func littleEndianBytes(_ values: [Float]) -> [UInt8] {
  values.withUnsafeBytes { Array($0) }
}

func hash(_ bytes: [UInt8]) -> String {
  var hash = ContentHash()
  bytes.withUnsafeBytes { hash.update($0) }
  return hash.finish()
}
