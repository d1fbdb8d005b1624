import BenchKit
import Testing

/// Seeded, so that a failure can be repeated.
@Suite("Fuzz")
actor FuzzTests {
  private let executor = ThreadExecutor(name: "client")
  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  deinit { executor.stop() }

  @Test("Mutated streams decode or end with an error of the protocol", arguments: 0..<4)
  func frames(seed: UInt64) {
    var random = SplitMix(seed: seed)
    let known = Set(["end"] + ErrorCode.allCases.map(\.rawValue))
    let streams = Golden.cases.map(\.bytes).filter { $0.count < 4096 }
    for _ in 0..<2000 {
      let (frames, ends) = decode(mutate(streams.randomElement(using: &random)!, &random))
      #expect(known.contains(ends))
      for frame in frames {
        // What was read is JSON, so that it survives writing and reading.
        #expect((try? JSONReader.read(frame.header.bytes)) != nil)
      }
    }
  }

  @Test("Random bytes are no JSON that comes back changed", arguments: 0..<2)
  func json(seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    let alphabet = Array(#"{}[]",:\0123456789.eE+-truefalsn u\u00d8\ud83d "#.utf8) + [0xC3, 0xA9, 0xFF, 0x09]
    for _ in 0..<20_000 {
      let bytes = (0..<Int.random(in: 1...24, using: &random)).map { _ in
        alphabet.randomElement(using: &random)!
      }
      guard let value = try? JSONReader.read(bytes) else { continue }
      #expect(try JSONReader.read(value.bytes) == value)
    }
  }

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

  private func mutate(_ bytes: [UInt8], _ random: inout SplitMix) -> [UInt8] {
    var bytes = bytes
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      let position = Int.random(in: 0...bytes.count, using: &random)
      switch Int.random(in: 0..<4, using: &random) {
      case 0 where position < bytes.count: bytes[position] = .random(in: 0...255, using: &random)
      case 1 where position < bytes.count: bytes.remove(at: position)
      case 2: bytes.insert(.random(in: 0...255, using: &random), at: position)
      default: bytes.removeLast(min(bytes.count, Int.random(in: 0..<8, using: &random)))
      }
    }
    return bytes
  }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) {
    state = seed
  }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var bits = state
    bits = (bits ^ bits >> 30) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ bits >> 27) &* 0x94D0_49BB_1331_11EB
    return bits ^ bits >> 31
  }
}
