import Foundation

/// The journal of a bundle, as PROTOCOL.md says: lines that are chained by digests, each on the disk before anything
/// else happens.
final class BundleJournal {
  private static let head = Array(#"{"chain":""#.utf8)
  private static let middle = Array(#"","record":"#.utf8)
  private static let tail = Array("}\n".utf8)
  private static let digits = 64

  private let path: String
  private let file: Int32
  private var chain: String
  private(set) var isEmpty = true

  /// Opens or begins the journal; `each` is given the records that are there. Throws BundleError where the file is
  /// damaged or belongs to another bundle, and PosixError.
  init(path: String, bundleDigest: String, each: (JSON) -> Void) throws {
    self.path = path
    chain = bundleDigest
    file = try retrying("open \(path)") { open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644) }
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
      closeDescriptor(file)
      throw PosixError("\(path) is being written by another agent")
    }
    do {
      let good = try read(bundleDigest, each)
      try retrying("truncate \(path)") { ftruncate(file, off_t(good)) }
      try retrying("seek \(path)") { lseek(file, 0, SEEK_END) }
    } catch {
      closeDescriptor(file)
      throw error
    }
  }

  deinit { closeDescriptor(file) }

  /// Writes a record, on the disk when this returns. Throws PosixError.
  func append(_ record: JSON) throws {
    let body = record.bytes
    chain = sha256(Array(chain.utf8) + body)
    let line = Self.head + Array(chain.utf8) + Self.middle + body + Self.tail
    var sent = 0
    while sent < line.count {
      sent += try line[sent...].withUnsafeBytes { bytes in
        try retrying("write \(path)") { write(file, bytes.baseAddress, bytes.count) }
      }
    }
    try retrying("fsync \(path)") { fsync(file) }
    isEmpty = false
  }

  /// The offset after the last whole line.
  private func read(_ bundleDigest: String, _ each: (JSON) -> Void) throws -> Int {
    guard let data = FileManager.default.contents(atPath: path) else { throw PosixError("read \(path)") }
    let content = [UInt8](data)
    var (good, number) = (0, 0)
    while let end = content[good...].firstIndex(of: UInt8(ascii: "\n")) {
      let line = content[good...end]
      let record = decode(line)
      number += 1
      if number == 1 { try check(record, bundleDigest) }
      guard let record, isLinked(line) else {
        throw BundleError("\(path): line \(number) was changed or damaged; give another journal")
      }
      each(record)
      isEmpty = false
      good = end + 1
    }
    return good
  }

  private func check(_ first: JSON?, _ bundleDigest: String) throws {
    guard first?["kind"]?.text == "bundle" else {
      throw BundleError("\(path) is not a journal of a bundle; give another")
    }
    guard first?["bundle"]?.text == bundleDigest else {
      throw BundleError("\(path) belongs to another bundle; give another journal, or move it away")
    }
  }

  private func isLinked(_ line: ArraySlice<UInt8>) -> Bool {
    chain = sha256(Array(chain.utf8) + body(of: line))
    return line.dropFirst(Self.head.count).prefix(Self.digits).elementsEqual(chain.utf8)
  }

  private func body(of line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    line.dropFirst(Self.head.count + Self.digits + Self.middle.count).dropLast(Self.tail.count)
  }

  private func decode(_ line: ArraySlice<UInt8>) -> JSON? {
    guard line.starts(with: Self.head), line.suffix(Self.tail.count).elementsEqual(Self.tail),
      line.dropFirst(Self.head.count + Self.digits).starts(with: Self.middle)
    else { return nil }
    return try? JSONReader.read(Array(body(of: line)))
  }
}
