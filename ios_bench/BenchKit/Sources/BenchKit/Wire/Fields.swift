/// Reads the fields of a request, each once, and refuses what is left over.
struct Fields {
  private let op: String
  private var left: [JSON.Field]

  init(op: String, header: JSON) {
    self.op = op
    guard case .object(let fields) = header else { preconditionFailure("a header is an object") }
    left = fields
  }

  /// Takes the field `key`; nil where it is absent.
  mutating func take(_ key: String) -> JSON? {
    guard let index = left.firstIndex(where: { $0.key.utf8.elementsEqual(key.utf8) }) else { return nil }
    return left.remove(at: index).value
  }

  mutating func integer(_ key: String, in range: ClosedRange<Int>) throws -> Int {
    try integer(take(key), key, in: range)
  }

  /// As the above; `absent` where there is no such field.
  mutating func integer(_ key: String, in range: ClosedRange<Int>, absent: Int) throws -> Int {
    guard let value = take(key) else { return absent }
    return try integer(value, key, in: range)
  }

  /// True or false; `absent` where there is no such field.
  /// Nil where there is no such field.
  mutating func bool(_ key: String) throws -> Bool? {
    guard let value = take(key) else { return nil }
    guard case .bool(let flag) = value else { throw wrong(key, "must be true or false") }
    return flag
  }

  mutating func string(_ key: String, characters range: ClosedRange<Int>) throws -> String {
    guard case .string(let text)? = take(key) else { throw wrong(key, "must be a string") }
    guard range.contains(text.unicodeScalars.count) else {
      throw wrong(key, "must have \(range.lowerBound) to \(range.upperBound) characters")
    }
    return text
  }

  /// 64 lower-case hexadecimal digits.
  mutating func sha256() throws -> String {
    guard case .string(let text)? = take("sha256"), text.utf8.count == 64,
      text.utf8.allSatisfy({ Self.hexDigits.contains($0) })
    else { throw wrong("sha256", "must be 64 lower-case hexadecimal digits") }
    return text
  }

  mutating func array(_ key: String, count range: ClosedRange<Int>) throws -> [JSON] {
    try array(take(key), key, count: range)
  }

  func array(_ value: JSON?, _ key: String, count range: ClosedRange<Int>) throws -> [JSON] {
    guard case .array(let values)? = value else { throw wrong(key, "must be a list") }
    guard range.contains(values.count) else {
      throw wrong(key, "must have \(range.lowerBound) to \(range.upperBound) entries")
    }
    return values
  }

  func integer(_ value: JSON?, _ key: String, in range: ClosedRange<Int>) throws -> Int {
    guard case .integer(let number)? = value, range.contains(number) else {
      throw wrong(key, "must be an integer from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  /// Throws where a field was not taken.
  func finish() throws {
    if let extra = left.first { throw wrong(String(extra.key.prefix(64)), "is not a field of this op") }
  }

  func wrong(_ key: String, _ what: String) -> OpError {
    OpError(.badRequest, "\(op): \(key) \(what)")
  }

  private static let hexDigits = Array("0123456789abcdef".utf8)
}
