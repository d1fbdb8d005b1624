import Foundation

/// Inputs for timing: the same for every model of the same inputs.
///
/// Floats are standard normal, since zeros and denormals have speeds of their own; other types are 0, which is
/// valid as an index and as a mask.
package func randomInputs(for specs: [TensorSpec]) -> [Tensor] {
  var normal = NormalSource(seed: 20_240_501)
  return specs.map { spec in
    let elements = spec.elements ?? 0
    let bytes: [UInt8] =
      switch spec.dtype {
      case .float64: littleEndian(elements) { normal.next().bitPattern }
      case .float32: littleEndian(elements) { Float(normal.next()).bitPattern }
      case .float16: littleEndian(elements) { halfPrecisionBits(Float(normal.next())) }
      default: [UInt8](repeating: 0, count: elements * spec.dtype.bytes)
      }
    return Tensor(spec: spec, bytes: bytes)
  }
}

/// Bits of the half-precision number nearest to `value`, toward zero, of which |value| is below 65504. Numbers
/// too small for a normal one become 0. (Swift's Float16 is missing on Intel Macs.)
package func halfPrecisionBits(_ value: Float) -> UInt16 {
  let sign = UInt16(truncatingIfNeeded: value.bitPattern >> 16) & 0x8000
  let exponent = Int(value.bitPattern >> 23 & 0xFF) - 127 + 15
  guard exponent > 0 else { return sign }
  return sign | UInt16(exponent) << 10 | UInt16(truncatingIfNeeded: value.bitPattern >> 13) & 0x3FF
}

/// Standard normal numbers by Box and Muller (1958) from SplitMix64 (Steele, Lea and Flood, 2014).
private struct NormalSource {
  private var state: UInt64
  private var spare: Double?

  init(seed: UInt64) {
    state = seed
  }

  mutating func next() -> Double {
    if let value = spare {
      spare = nil
      return value
    }
    let radius = (-2 * log(1 - uniform())).squareRoot()
    let angle = 2 * Double.pi * uniform()
    spare = radius * sin(angle)
    return radius * cos(angle)
  }

  /// In [0, 1).
  private mutating func uniform() -> Double {
    state &+= 0x9E37_79B9_7F4A_7C15
    var bits = state
    bits = (bits ^ bits >> 30) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ bits >> 27) &* 0x94D0_49BB_1331_11EB
    return Double((bits ^ bits >> 31) >> 11) * 0x1p-53
  }
}

private func littleEndian<Bits: FixedWidthInteger>(_ count: Int, _ next: () -> Bits) -> [UInt8] {
  var bytes: [UInt8] = []
  bytes.reserveCapacity(count * Bits.bitWidth / 8)
  for _ in 0..<count { withUnsafeBytes(of: next().littleEndian) { bytes.append(contentsOf: $0) } }
  return bytes
}
