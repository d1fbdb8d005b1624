/// `bytes` with one to four bytes changed, removed or added, or cut short.
func mutate(_ bytes: [UInt8], _ random: inout SplitMix) -> [UInt8] {
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
