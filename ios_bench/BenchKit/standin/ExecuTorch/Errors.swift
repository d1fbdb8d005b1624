import CETShim
import Foundation

/// Codes of ExecuTorch's errors that this module makes itself.
public enum ErrorCode: Int, Sendable {
  case notSupported = 0x10
  case invalidArgument = 0x12
}

/// Errors have the codes of ExecuTorch's runtime/core/error.h, as those of the real module.
private let domain = "org.pytorch.executorch.error"

/// Throws what the shim says where `code` is one of its errors.
func check(_ code: Int32) throws {
  guard code != Int32(ET_OK) else { return }
  throw failure(Int(code), String(cString: et_last_error()))
}

func failure(_ code: ErrorCode, _ text: String) -> NSError {
  failure(code.rawValue, text)
}

private func failure(_ code: Int, _ text: String) -> NSError {
  NSError(domain: domain, code: code, userInfo: [NSLocalizedDescriptionKey: text])
}
