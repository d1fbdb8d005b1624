import BenchKit
import Testing

@Suite("SHA-256")
struct HashTests {
  @Test(
    "Vectors of FIPS 180-4",
    arguments: [
      ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
      ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
      (
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
      ),
      (
        String(repeating: "a", count: 1_000_000),
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
      ),
    ])
  func vectors(text: String, expected: String) {
    #expect(hash(Array(text.utf8)) == expected)
  }

  @Test(
    "However the bytes are cut, the hash is the same",
    arguments: [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 200])
  func pieces(length: Int) {
    let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 * 31) }
    let whole = hash(bytes)
    for size in [1, 3, 63, 64, 65] {
      var pieces = ContentHash()
      for start in stride(from: 0, to: length, by: size) {
        bytes[start..<min(start + size, length)].withUnsafeBytes { pieces.update($0) }
      }
      #expect(pieces.finish() == whole)
    }
  }
}
