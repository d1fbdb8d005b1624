import Foundation

/// The files of a zip archive that stores them without compression.
///
/// Reads what `bench` sends and nothing beyond it: one volume, no encryption, no ZIP64, no comment, names in
/// printable ASCII. Files must not overlap, so what is unpacked is never larger than the archive itself.
/// Checksums are left alone: the store has compared the archive's SHA-256 with that of the sender.
/// Layout: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (its end).
package struct StoredZip {
  package struct Entry {
    /// Path inside the archive, one element a folder; checked to stay below the place of unpacking.
    package let path: [String]
    package let isDirectory: Bool
    /// Where the file's bytes stand in the archive.
    let bytes: Range<Int>
  }

  package struct Refusal: Error, Equatable {
    package let reason: String
  }

  package static let maxEntries = 4096
  private static let maxNameBytes = 512
  private static let maxDepth = 16
  private static let endBytes = 22
  private static let centralHeaderBytes = 46
  private static let localHeaderBytes = 30
  private static let namesAreUTF8: UInt16 = 1 << 11

  package let entries: [Entry]
  private let archive: Data

  /// Reads and checks the whole directory; throws `Refusal`.
  package init(_ archive: Data) throws {
    // A slice counts its bytes from where it was cut; offsets here count from 0.
    self.archive = archive.startIndex == 0 ? archive : Data(archive)
    entries = try Self.readEntries(LittleEndianBytes(self.archive))
    try Self.requireDistinctPlaces(entries)
  }

  package func contents(of entry: Entry) -> Data {
    archive[entry.bytes]
  }

  private static func readEntries(_ bytes: LittleEndianBytes) throws -> [Entry] {
    let end = bytes.count - endBytes
    guard end >= 0, bytes.u32(end) == 0x0605_4b50, bytes.u16(end + 20) == 0 else {
      throw Refusal(reason: "it is not a zip archive, is cut short, or ends in a comment")
    }
    let (count, size, start) = (Int(bytes.u16(end + 10)), Int(bytes.u32(end + 12)), Int(bytes.u32(end + 16)))
    guard bytes.u32(end + 4) == 0, bytes.u16(end + 8) == bytes.u16(end + 10), start + size == end else {
      throw Refusal(reason: "its directory is damaged, or it is in ZIP64 format or on several volumes")
    }
    guard 1...maxEntries ~= count else {
      throw Refusal(reason: "it has \(count) entries; 1 to \(maxEntries) are allowed")
    }
    var entries: [Entry] = []
    var position = start
    for _ in 0..<count {
      let (entry, next) = try readEntry(bytes, at: position, directory: start..<end)
      entries.append(entry)
      position = next
    }
    guard position == end else { throw Refusal(reason: "its directory is longer than its entries") }
    return entries
  }

  /// The entry whose central header is at `position`, and where the next one starts.
  private static func readEntry(
    _ bytes: LittleEndianBytes, at position: Int, directory: Range<Int>
  ) throws -> (Entry, Int) {
    let nameStart = position + centralHeaderBytes
    guard nameStart <= directory.upperBound, bytes.u32(position) == 0x0201_4b50 else {
      throw Refusal(reason: "its directory is damaged")
    }
    let nameBytes = Int(bytes.u16(position + 28))
    let next = nameStart + nameBytes + Int(bytes.u16(position + 30)) + Int(bytes.u16(position + 32))
    guard next <= directory.upperBound else { throw Refusal(reason: "its directory is damaged") }
    let name = try checkedName(bytes.slice(nameStart, nameBytes))
    guard bytes.u16(position + 8) & ~namesAreUTF8 == 0 else {
      throw Refusal(reason: "\(name) is encrypted or was written as a stream")
    }
    guard bytes.u16(position + 10) == 0 else {
      throw Refusal(reason: "\(name) is compressed; store the files (zip -0)")
    }
    let size = Int(bytes.u32(position + 24))
    guard bytes.u32(position + 20) == bytes.u32(position + 24), bytes.u16(position + 34) == 0 else {
      throw Refusal(reason: "\(name) has two different sizes")
    }
    let isDirectory = name.hasSuffix("/")
    try requirePlainFile(
      name, isDirectory: isDirectory, madeOn: bytes.u16(position + 4) >> 8, mode: bytes.u16(position + 40))
    let contents = try locate(
      name, size: size, bytes, header: Int(bytes.u32(position + 42)), central: position,
      end: directory.lowerBound)
    guard !isDirectory || contents.isEmpty else { throw Refusal(reason: "the folder \(name) has contents") }
    return (Entry(path: try checkedPath(name), isDirectory: isDirectory, bytes: contents), next)
  }

  /// Where the file's bytes are, its local header being checked against the central one.
  private static func locate(
    _ name: String, size: Int, _ bytes: LittleEndianBytes, header: Int, central: Int, end: Int
  ) throws -> Range<Int> {
    let nameStart = header + localHeaderBytes
    guard nameStart <= end, bytes.u32(header) == 0x0403_4b50 else {
      throw Refusal(reason: "\(name) is not where the directory says")
    }
    let nameBytes = Int(bytes.u16(header + 26))
    let start = nameStart + nameBytes + Int(bytes.u16(header + 28))
    guard start + size <= end else { throw Refusal(reason: "\(name) reaches beyond the archive's files") }
    // Flags, method, checksum, sizes: bytes 6 to 26 here, 8 to 28 there, times included.
    guard bytes.slice(header + 6, 20) == bytes.slice(central + 8, 20),
      bytes.slice(nameStart, nameBytes) == bytes.slice(central + centralHeaderBytes, nameBytes),
      nameBytes == Int(bytes.u16(central + 28))
    else { throw Refusal(reason: "\(name) is described in two different ways") }
    return start..<(start + size)
  }

  private static func checkedName(_ bytes: Data) throws -> String {
    guard 1...maxNameBytes ~= bytes.count else {
      throw Refusal(reason: "a name has \(bytes.count) bytes; 1 to \(maxNameBytes) are allowed")
    }
    let forbidden = Set("\\:".utf8)
    guard bytes.allSatisfy({ 0x20..<0x7f ~= $0 && !forbidden.contains($0) }) else {
      throw Refusal(reason: "a name has characters other than printable ASCII, or \\ or :")
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func checkedPath(_ name: String) throws -> [String] {
    let trimmed = name.hasSuffix("/") ? String(name.dropLast()) : name
    let path = trimmed.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    guard path.count <= maxDepth else {
      throw Refusal(reason: "\(name) lies more than \(maxDepth) folders deep")
    }
    guard path.allSatisfy({ $0 != "" && $0 != "." && $0 != ".." }) else {
      throw Refusal(reason: "\(name) is absolute or climbs out of its folder")
    }
    return path
  }

  /// Refuses links and devices, which only archives made on Unix (3) or macOS (19) can say they hold.
  private static func requirePlainFile(
    _ name: String, isDirectory: Bool, madeOn system: UInt16, mode: UInt16
  ) throws {
    let kind = mode & 0o170000
    let expected: UInt16 = isDirectory ? 0o040000 : 0o100000
    guard kind == 0 || kind == expected || ![3, 19].contains(system) else {
      throw Refusal(reason: "\(name) is a link or another special file")
    }
  }

  /// Refuses two entries at one place, a file that is also a folder, and files that share bytes.
  private static func requireDistinctPlaces(_ entries: [Entry]) throws {
    // Some file systems are case-insensitive.
    let place = { (path: ArraySlice<String>) in path.joined(separator: "/").lowercased() }
    var seen: Set<String> = []
    for entry in entries {
      guard seen.insert(place(entry.path[...])).inserted else {
        throw Refusal(reason: "\(entry.path.joined(separator: "/")) is in it twice")
      }
    }
    let files = Set(entries.lazy.filter { !$0.isDirectory }.map { place($0.path[...]) })
    for entry in entries {
      for depth in 1..<entry.path.count where files.contains(place(entry.path.prefix(depth))) {
        throw Refusal(reason: "\(entry.path.prefix(depth).joined(separator: "/")) is a file and a folder")
      }
    }
    let ranges = entries.map(\.bytes).filter { !$0.isEmpty }.sorted { $0.lowerBound < $1.lowerBound }
    for (one, next) in zip(ranges, ranges.dropFirst()) where next.lowerBound < one.upperBound {
      throw Refusal(reason: "two of its files share bytes")
    }
  }
}

/// Reads integers at offsets that the caller has checked.
private struct LittleEndianBytes {
  private let data: Data

  init(_ data: Data) { self.data = data }

  var count: Int { data.count }

  func u16(_ offset: Int) -> UInt16 { UInt16(data[offset]) | UInt16(data[offset + 1]) << 8 }

  func u32(_ offset: Int) -> UInt32 { UInt32(u16(offset)) | UInt32(u16(offset + 2)) << 16 }

  func slice(_ offset: Int, _ count: Int) -> Data { data[offset..<(offset + count)] }
}
