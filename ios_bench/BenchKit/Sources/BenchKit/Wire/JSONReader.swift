import Foundation

/// Why bytes are not JSON that the protocol takes.
package struct JSONError: Error, Equatable {
  package let message: String
}

/// A strict reader of RFC 8259 in UTF-8 with the protocol's further rules: no key twice in one object, no number
/// beyond a 64-bit float, no half surrogate pair, and a bound on how deep arrays and objects nest.
///
/// Foundation's reader follows none of these rules and distinguishes integers on some platforms only.
package struct JSONReader {
  private let bytes: UnsafeBufferPointer<UInt8>
  private let maxDepth: Int
  private var position = 0

  /// The one value in `bytes`, with nothing but whitespace around it.
  package static func read(_ bytes: [UInt8], maxDepth: Int = Limits.depth) throws -> JSON {
    try bytes.withUnsafeBufferPointer { buffer in
      var reader = JSONReader(bytes: buffer, maxDepth: maxDepth)
      return try reader.document()
    }
  }

  private init(bytes: UnsafeBufferPointer<UInt8>, maxDepth: Int) {
    self.bytes = bytes
    self.maxDepth = maxDepth
  }

  private mutating func document() throws -> JSON {
    let value = try self.value(depth: 0)
    guard peek() == nil else { throw failure("something follows the value") }
    return value
  }

  private mutating func value(depth: Int) throws -> JSON {
    switch peek() {
    case UInt8(ascii: "{"): return try object(depth: depth + 1)
    case UInt8(ascii: "["): return try array(depth: depth + 1)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try literal("true", .bool(true))
    case UInt8(ascii: "f"): return try literal("false", .bool(false))
    case UInt8(ascii: "n"): return try literal("null", .null)
    case UInt8(ascii: "-"), .some(UInt8(ascii: "0")...UInt8(ascii: "9")): return try number()
    default: throw failure("a value is missing")
    }
  }

  private mutating func object(depth: Int) throws -> JSON {
    try enter(depth)
    var fields: [JSON.Field] = []
    var keys: Set<[UInt8]> = []
    if take(UInt8(ascii: "}")) { return .object([]) }
    repeat {
      guard peek() == UInt8(ascii: "\"") else { throw failure("a key is missing") }
      let key = try string()
      guard keys.insert(Array(key.utf8)).inserted else { throw failure("a key appears twice in one object") }
      guard take(UInt8(ascii: ":")) else { throw failure("a colon is missing") }
      fields.append(JSON.Field(key, try value(depth: depth)))
    } while take(UInt8(ascii: ","))
    guard take(UInt8(ascii: "}")) else { throw failure("an object does not end") }
    return .object(fields)
  }

  private mutating func array(depth: Int) throws -> JSON {
    try enter(depth)
    var values: [JSON] = []
    if take(UInt8(ascii: "]")) { return .array([]) }
    repeat {
      values.append(try value(depth: depth))
    } while take(UInt8(ascii: ","))
    guard take(UInt8(ascii: "]")) else { throw failure("an array does not end") }
    return .array(values)
  }

  private mutating func enter(_ depth: Int) throws {
    guard depth <= maxDepth else { throw JSONError(message: "it nests deeper than \(maxDepth) levels") }
    position += 1
  }

  private mutating func literal(_ text: StaticString, _ value: JSON) throws -> JSON {
    let end = position + text.utf8CodeUnitCount
    guard end <= bytes.count, memcmp(bytes.baseAddress! + position, text.utf8Start, end - position) == 0
    else { throw failure("an unknown word") }
    position = end
    return value
  }

  private mutating func number() throws -> JSON {
    let start = position
    _ = skip(UInt8(ascii: "-"))
    if !skip(UInt8(ascii: "0")) { try digits() }
    var isInteger = true
    if skip(UInt8(ascii: ".")) {
      isInteger = false
      try digits()
    }
    if skip(UInt8(ascii: "e")) || skip(UInt8(ascii: "E")) {
      isInteger = false
      _ = skip(UInt8(ascii: "+")) || skip(UInt8(ascii: "-"))
      try digits()
    }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    if isInteger, let value = Int(text) { return .integer(value) }
    guard let value = Double(text), value.isFinite else {
      throw JSONError(message: "a number is out of range")
    }
    return isInteger ? .hugeInteger(value) : .number(value)
  }

  private mutating func digits() throws {
    let start = position
    while position < bytes.count, isDigit(bytes[position]) { position += 1 }
    guard position > start else { throw failure("a digit is missing") }
  }

  private mutating func string() throws -> String {
    position += 1
    var content: [UInt8] = []
    while position < bytes.count {
      let byte = bytes[position]
      position += 1
      switch byte {
      case UInt8(ascii: "\""):
        let text = String(decoding: content, as: UTF8.self)
        // Decoding repairs what is not UTF-8, so that it comes back changed.
        guard text.utf8.elementsEqual(content) else { throw JSONError(message: "a string is not UTF-8") }
        return text
      case UInt8(ascii: "\\"): try escape(into: &content)
      case 0..<0x20: throw failure("a control character in a string")
      default: content.append(byte)
      }
    }
    throw failure("a string does not end")
  }

  private mutating func escape(into content: inout [UInt8]) throws {
    guard position < bytes.count else { throw failure("a string does not end") }
    let byte = bytes[position]
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): content.append(byte)
    case UInt8(ascii: "b"): content.append(0x08)
    case UInt8(ascii: "f"): content.append(0x0C)
    case UInt8(ascii: "n"): content.append(0x0A)
    case UInt8(ascii: "r"): content.append(0x0D)
    case UInt8(ascii: "t"): content.append(0x09)
    case UInt8(ascii: "u"): content.append(contentsOf: String(try unicodeEscape()).utf8)
    default: throw failure("an unknown escape")
    }
  }

  private mutating func unicodeEscape() throws -> Character {
    var code = try hex4()
    if (0xD800..<0xDC00).contains(code), skip(UInt8(ascii: "\\")), skip(UInt8(ascii: "u")) {
      let low = try hex4()
      guard (0xDC00..<0xE000).contains(low) else { throw Self.halfPair }
      code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
    }
    guard let scalar = Unicode.Scalar(code) else { throw Self.halfPair }
    return Character(scalar)
  }

  private mutating func hex4() throws -> UInt32 {
    guard position + 4 <= bytes.count else { throw failure("an escape does not end") }
    var code: UInt32 = 0
    for byte in bytes[position..<position + 4] {
      guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
        throw failure("an escape has no four hexadecimal digits")
      }
      code = code << 4 | UInt32(digit)
    }
    position += 4
    return code
  }

  /// The next byte that is not whitespace; nil at the end.
  private mutating func peek() -> UInt8? {
    while position < bytes.count {
      switch bytes[position] {
      case 0x20, 0x09, 0x0A, 0x0D: position += 1
      default: return bytes[position]
      }
    }
    return nil
  }

  /// Takes `byte` after any whitespace.
  private mutating func take(_ byte: UInt8) -> Bool {
    guard peek() == byte else { return false }
    position += 1
    return true
  }

  /// Takes `byte` if it is the very next.
  private mutating func skip(_ byte: UInt8) -> Bool {
    guard position < bytes.count, bytes[position] == byte else { return false }
    position += 1
    return true
  }

  private func isDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }

  private func failure(_ what: String) -> JSONError {
    JSONError(message: "\(what) (byte \(position))")
  }

  private static let halfPair = JSONError(message: "a string has half a surrogate pair")
}
