import Foundation

#if canImport(CryptoKit)
  import CryptoKit
#endif

/// SHA-256 of bytes that come in pieces.
package struct ContentHash {
  private var digest = SHA256()

  package init() {}

  package mutating func update(_ bytes: UnsafeRawBufferPointer) {
    digest.update(bufferPointer: bytes)
  }

  /// 64 lower-case hexadecimal digits; nothing may be given after it.
  package mutating func finish() -> String {
    digest.finalize().map { byte in
      let digits = String(byte, radix: 16)
      return byte < 16 ? "0" + digits : digits
    }.joined()
  }

  /// The hash and the size of a file's content. Throws PosixError.
  package static func ofFile(_ path: String) throws -> (sha256: String, bytes: Int) {
    let file = try retrying("open") { open(path, O_RDONLY | O_CLOEXEC) }
    defer { closeDescriptor(file) }
    var hash = ContentHash()
    var bytes = 0
    let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: Limits.chunkBytes, alignment: 16)
    defer { chunk.deallocate() }
    while true {
      let count = try retrying("read") { read(file, chunk.baseAddress, chunk.count) }
      if count == 0 { return (hash.finish(), bytes) }
      hash.update(UnsafeRawBufferPointer(rebasing: chunk[..<count]))
      bytes += count
    }
  }
}
