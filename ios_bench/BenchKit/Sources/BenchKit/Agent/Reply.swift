/// A reply's fields, without the id, and its payload.
struct Reply {
  var fields: [JSON.Field]
  var payload: [UInt8] = []

  init(_ fields: KeyValuePairs<String, JSON> = [:], payload: [UInt8] = []) {
    self.fields = fields.map { JSON.Field($0.key, $0.value) }
    self.payload = payload
  }

  /// An error, its message on one line and of bounded length.
  init(error code: ErrorCode, _ message: String) {
    let line = message.split(whereSeparator: \.isWhitespace).joined(separator: " ")
    let body = JSON.object(["code": .string(code.rawValue), "message": .string(String(line.prefix(1000)))])
    self.init(["error": body])
  }

  /// The reply as a frame.
  func frame(id: Int?) throws -> [UInt8] {
    try Frame.encode([.init("id", .optional(id))] + fields, payloadBytes: payload.count) + payload
  }
}
