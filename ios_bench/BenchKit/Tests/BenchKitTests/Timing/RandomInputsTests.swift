import BenchKit
import Testing

@Suite("Inputs for timing")
struct RandomInputsTests {
  private func floats(_ tensor: Tensor) -> [Float] {
    tensor.bytes.withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
    }
  }

  @Test("Floats are standard normal: the first four moments of 40,000 lie within five standard errors")
  func normal() {
    let values = floats(randomInputs(for: [TensorSpec(dtype: .float32, shape: [200, 200])])[0]).map(
      Double.init)
    let moments = (1...4).map { power in
      values.reduce(0) { sum, value in sum + (0..<power).reduce(1) { product, _ in product * value } }
        / 40_000
    }
    // Variances of x, x², x³ and x⁴ of a standard normal x: 1, 2, 15 and 96.
    for (moment, (mean, variance)) in zip(moments, [(0.0, 1.0), (1, 2), (0, 15), (3, 96)]) {
      #expect(abs(moment - mean) < 5 * (variance / 40_000).squareRoot())
    }
  }

  @Test("Models of the same inputs get the same, and one model's inputs differ")
  func reproducible() {
    let specs = [TensorSpec(dtype: .float32, shape: [8]), TensorSpec(dtype: .float32, shape: [8])]
    let inputs = randomInputs(for: specs)
    #expect(inputs == randomInputs(for: specs))
    #expect(inputs[0].bytes != inputs[1].bytes)
  }

  @Test("Other types are zero; shapes may be empty or scalar", arguments: DType.allCases)
  func types(dtype: DType) {
    let specs = [[], [0], [3]].map { TensorSpec(dtype: dtype, shape: $0) }
    let inputs = randomInputs(for: specs)
    #expect(inputs.map(\.bytes.count) == [dtype.bytes, 0, 3 * dtype.bytes])
    let isFloat = dtype.rawValue.hasPrefix("float")
    #expect(inputs[2].bytes.contains { $0 != 0 } == isFloat)
  }

  #if !(os(macOS) && arch(x86_64))
    @Test(
      "Half precision has the bits of Float16, cut toward zero",
      arguments: [0.1, -1.75, 3.999, -6.5, 0.0625, 1e-9])
    func half(value: Double) {
      let value = Float(value)
      let bits = halfPrecisionBits(value)
      let nearest = Float16(value)
      let towardZero =
        Float(nearest.magnitude) > value.magnitude ? nearest.bitPattern - 1 : nearest.bitPattern
      #expect(bits == (value.magnitude < 6.2e-5 ? bits & 0x8000 : towardZero))
    }
  #endif
}
