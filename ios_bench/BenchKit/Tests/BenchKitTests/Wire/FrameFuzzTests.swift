import BenchKit
import Testing

/// Seeded, so that a failure can be repeated.
@Suite("Fuzzed frames")
struct FrameFuzzTests {
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

  @Test("Random bytes that are JSON come back unchanged", arguments: 0..<2)
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
}
