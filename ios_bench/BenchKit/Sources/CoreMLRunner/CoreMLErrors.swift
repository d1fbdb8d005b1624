import Foundation

extension Error {
  /// What went wrong, for a message of one line.
  var oneLine: String {
    let words = (self as NSError).localizedDescription.split(whereSeparator: \.isWhitespace)
    return String(words.joined(separator: " ").prefix(200))
  }

  var isOutOfSpace: Bool {
    let error = self as NSError
    let underlying = error.userInfo[NSUnderlyingErrorKey] as? NSError
    return [error, underlying].contains { error in
      switch error?.domain {
      case NSCocoaErrorDomain: error?.code == CocoaError.fileWriteOutOfSpace.rawValue
      case NSPOSIXErrorDomain: error?.code == Int(ENOSPC)
      default: false
      }
    }
  }
}
