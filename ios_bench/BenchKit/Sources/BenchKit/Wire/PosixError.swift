import Foundation

/// A system call failed.
package struct PosixError: LocalizedError, Equatable {
  package let code: Int32
  private let call: String

  /// Takes the reason from `errno`.
  package init(_ call: String) {
    code = errno
    self.call = call
  }

  package var errorDescription: String? { "\(call): \(String(cString: strerror(code)))" }
}

/// Repeats `call` for as long as a signal interrupts it; throws PosixError where it returns less than 0.
@discardableResult
package func retrying<Result: SignedInteger>(_ name: String, _ call: () -> Result) throws -> Result {
  while true {
    let result = call()
    if result >= 0 { return result }
    guard errno == EINTR else { throw PosixError(name) }
  }
}
