import CETShim
import Foundation

/// Domain of the errors that this module throws; their codes are those of ExecuTorch's runtime/core/error.h.
public let ErrorDomain = "org.pytorch.executorch.error"

/// Throws what the shim says where `code` is one of its errors.
func check(_ code: Int32) throws {
  guard code != Int32(ET_OK) else { return }
  throw failure(Int(code), String(cString: et_last_error()))
}

func failure(_ code: Int, _ text: String) -> NSError {
  NSError(domain: ErrorDomain, code: code, userInfo: [NSLocalizedDescriptionKey: text])
}
