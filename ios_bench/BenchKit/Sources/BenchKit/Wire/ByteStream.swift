/// Bytes in memory to read frames from.
package final class ByteStream: ByteSource {
  private var left: ArraySlice<UInt8>

  package init(_ bytes: [UInt8]) {
    left = bytes[...]
  }

  package func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    let count = min(buffer.count, left.count)
    buffer.copyBytes(from: left.prefix(count))
    left = left.dropFirst(count)
    return count
  }
}
