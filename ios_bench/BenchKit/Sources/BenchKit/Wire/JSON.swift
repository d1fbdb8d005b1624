/// A JSON value. Objects keep the order of their keys; integers and other numbers are distinct, as the
/// protocol does: `1` is an integer, `1.0` and `1e0` are not.
public enum JSON: Sendable, Equatable {
  case null
  case bool(Bool)
  case integer(Int)
  /// An integer that a 64-bit one does not hold, as the nearest double.
  case hugeInteger(Double)
  case number(Double)
  case string(String)
  case array([JSON])
  case object([Field])

  /// A key of an object and its value.
  public struct Field: Sendable, Equatable {
    public let key: String
    public let value: JSON

    public init(_ key: String, _ value: JSON) {
      self.key = key
      self.value = value
    }
  }
}

extension JSON {
  /// An object of these fields, in their order.
  public static func object(_ fields: KeyValuePairs<String, JSON>) -> JSON {
    .object(fields.map { Field($0.key, $0.value) })
  }

  public static func optional(_ value: String?) -> JSON { value.map(JSON.string) ?? .null }
  public static func optional(_ value: Int?) -> JSON { value.map(JSON.integer) ?? .null }
  public static func optional(_ value: Bool?) -> JSON { value.map(JSON.bool) ?? .null }

  /// A double; null where it is absent or not finite, for which JSON has no number.
  public static func optional(_ value: Double?) -> JSON {
    value.flatMap { $0.isFinite ? JSON.number($0) : nil } ?? .null
  }

  /// The value of `key` where this is an object that has it. Keys are compared by their bytes: Swift holds
  /// strings equal that differ in Unicode normalisation.
  public subscript(key: String) -> JSON? {
    guard case .object(let fields) = self else { return nil }
    return fields.first { $0.key.utf8.elementsEqual(key.utf8) }?.value
  }
}
