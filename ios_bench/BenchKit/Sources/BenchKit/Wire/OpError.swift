/// The codes of PROTOCOL.md's errors.
public enum ErrorCode: String, Sendable, CaseIterable {
  case headerTooLarge = "header_too_large"
  case payloadTooLarge = "payload_too_large"
  case badHeader = "bad_header"
  case truncated
  case timeout
  case busy
  case unauthorized
  case protocolVersion = "protocol_version"
  case badRequest = "bad_request"
  case unknownOp = "unknown_op"
  case hashMismatch = "hash_mismatch"
  case storageFull = "storage_full"
  case unknownModel = "unknown_model"
  case unknownRuntime = "unknown_runtime"
  case badOption = "bad_option"
  case optionsConflict = "options_conflict"
  case badModel = "bad_model"
  case outOfMemory = "out_of_memory"
  case tooManyHandles = "too_many_handles"
  case unknownHandle = "unknown_handle"
  case badInput = "bad_input"
  case runFailed = "run_failed"
  case notReady = "not_ready"
  case cancelled
  case `internal`
}

/// A failed request. The connection stays open unless `closes`.
public struct OpError: Error, Equatable {
  public let code: ErrorCode
  /// One line for people: what, why, what to do next.
  public let message: String
  public let closes: Bool

  public init(_ code: ErrorCode, _ message: String, closes: Bool = false) {
    self.code = code
    self.message = message
    self.closes = closes
  }
}
