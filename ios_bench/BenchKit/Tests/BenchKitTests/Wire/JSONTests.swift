import BenchKit
import Testing

@Suite("JSON")
struct JSONTests {
  private func read(_ text: String) throws -> JSON { try JSONReader.read(Array(text.utf8)) }

  @Test(
    "Values are read as what they are",
    arguments: [
      ("null", .null), (" true\n", .bool(true)), ("0", .integer(0)), ("-0", .integer(0)),
      ("-12", .integer(-12)),
      ("9223372036854775807", .integer(.max)),
      ("9223372036854775808", .hugeInteger(9_223_372_036_854_775_808)),
      ("1.0", .number(1)), ("1e2", .number(100)), ("-1.5E-1", .number(-0.15)), ("1e-400", .number(0)),
      ("[]", .array([])), ("[1, [2]]", .array([.integer(1), .array([.integer(2)])])),
      ("{ \"a\" : {} }", .object([.init("a", .object([]))])),
      (#""a\"\\\/\b\f\n\r\t""#, .string("a\"\\/\u{8}\u{c}\n\r\t")),
      (#""\u00e9\ud83d\uDE00""#, .string("é😀")), ("\"é😀\u{7f}\"", .string("é😀\u{7f}")),
    ] as [(String, JSON)])
  func values(text: String, expected: JSON) throws {
    #expect(try read(text) == expected)
  }

  @Test(
    "What is not JSON, or not the protocol's, is refused",
    arguments: [
      "", " ", "nul", "nulll", "True", "NaN", "Infinity", "-", "+1", "01", "-01", "1.", ".5", "1e", "1e+",
      "0x1",
      "1e400", "-1e400", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "]", "{", "{}}", "{\"a\"}", "{\"a\":}",
      "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\":1 \"b\":2}", "\"", "\"\\\"", "\"\\x\"", "\"\\u12\"",
      "\"\\u12g4\"",
      "\"\n\"", "\"\u{1f}\"", "'a'", "1 1", "// a\n1", "\u{feff}1", "\u{a0}1", #""\ud800""#, #""\ud800a""#,
      #""\ud800\n""#, #""\udc00""#, #""\ud800\ud800""#, #"{"a":1,"a":1}"#, #"{"a":1,"\u0061":1}"#,
      #"[{"b":{"a":1,"a":2}}]"#,
    ])
  func refused(text: String) {
    #expect(throws: JSONError.self) { try read(text) }
  }

  @Test("An integer of many digits is beyond a 64-bit float")
  func hugeInteger() {
    #expect(throws: JSONError.self) { try read("1" + String(repeating: "0", count: 400)) }
  }

  @Test(
    "A string that is not UTF-8 is refused",
    arguments: [[0xFF], [0xC3], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80]] as [[UInt8]])
  func notUTF8(bytes: [UInt8]) {
    #expect(throws: JSONError.self) { try JSONReader.read([0x22] + bytes + [0x22]) }
  }

  @Test("Keys that only Unicode holds equal are two keys, and each is found")
  func normalisation() throws {
    let value = try read("{\"\u{e9}\": 1, \"e\u{301}\": 2}")
    #expect(value["\u{e9}"] == .integer(1))
    #expect(value["e\u{301}"] == .integer(2))
  }

  @Test("Nesting is bounded, the outermost counted")
  func depth() throws {
    let nested = { (depth: Int) in String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
    }
    #expect(throws: Never.self) { try read(nested(32)) }
    #expect(throws: JSONError.self) { try read(nested(33)) }
    #expect(throws: JSONError.self) { try read(nested(1_000_000)) }
  }

  @Test("What is written reads as it was")
  func roundTrip() throws {
    let value = JSON.object([
      "a": .array([
        .null, .bool(false), .integer(.min), .number(0.1), .number(.leastNonzeroMagnitude), .number(1e300),
      ]),
      "é\"\\\u{0}\u{1f}\u{7f}😀": .string("\r\n\t/"), "": .object([]),
    ])
    #expect(try JSONReader.read(value.bytes) == value)
  }

  @Test("A number that is not finite is written as null")
  func notFinite() {
    #expect(JSON.array([.number(.nan), .number(.infinity)]).bytes == Array("[null,null]".utf8))
    #expect(JSON.optional(Double.infinity) == .null)
  }
}
