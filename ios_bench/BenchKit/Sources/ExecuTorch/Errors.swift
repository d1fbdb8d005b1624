import CETShim
import Foundation

/// Errors have the codes of ExecuTorch's runtime/core/error.h, as those of the real module.
private let domain = "org.pytorch.executorch.error"

/// Throws what the shim says where `code` is one of its errors.
func check(_ code: Int32) throws {
  guard code != Int32(ET_OK) else { return }
  throw failure(Int(code), String(cString: et_last_error()))
}

func failure(_ code: Int, _ text: String) -> NSError {
  NSError(domain: domain, code: code, userInfo: [NSLocalizedDescriptionKey: text])
}
