import Foundation

/// Writes zip archives, well formed or with one thing wrong.
package struct ZipWriter {
  package struct Entry: Sendable {
    package var name: String
    package var contents: [UInt8]
    package var method: UInt16
    package var flags: UInt16
    /// Unix mode; regular files and folders as Python's zipfile writes them.
    package var mode: UInt16?
    /// What the directory says the file's size is, where that is not true.
    package var claimedSize: Int?
    /// The name in the local header, where that differs.
    package var localName: String?
    /// Index of an earlier entry whose contents begin with this one's local header and bytes.
    package var inside: Int?

    package init(
      name: String, contents: [UInt8] = [], method: UInt16 = 0, flags: UInt16 = 0, mode: UInt16? = nil,
      claimedSize: Int? = nil, localName: String? = nil, inside: Int? = nil
    ) {
      self.name = name
      self.contents = contents
      self.method = method
      self.flags = flags
      self.mode = mode
      self.claimedSize = claimedSize
      self.localName = localName
      self.inside = inside
    }
  }

  package var entries: [Entry]
  package var comment: String

  package init(entries: [Entry], comment: String = "") {
    self.entries = entries
    self.comment = comment
  }

  package func archive() -> Data {
    var files = Data()
    var directory = Data()
    var offsets: [Int] = []
    for entry in entries {
      if let outer = entry.inside {
        offsets.append(offsets[outer] + 30 + entries[outer].name.utf8.count)
      } else {
        offsets.append(files.count)
        files.append(contentsOf: entry.localHeader + entry.contents)
      }
      directory.append(0x0201_4b50 as UInt32, 3 << 8 | 20 as UInt16, 20 as UInt16)
      directory.append(contentsOf: entry.common)
      directory.append(UInt16(entry.name.utf8.count), 0 as UInt16, 0 as UInt16, 0 as UInt16, 0 as UInt16)
      let kind: UInt16 = entry.name.hasSuffix("/") ? 0o040755 : 0o100644
      directory.append(0 as UInt16, entry.mode ?? kind, UInt32(offsets.last!))
      directory.append(contentsOf: entry.name.utf8)
    }
    var end = Data()
    end.append(0x0605_4b50 as UInt32, 0 as UInt32, UInt16(entries.count), UInt16(entries.count))
    end.append(UInt32(directory.count), UInt32(files.count), UInt16(comment.utf8.count))
    return files + directory + end + Data(comment.utf8)
  }
}

extension ZipWriter.Entry {
  package var localHeader: Data {
    var bytes = Data()
    bytes.append(0x0403_4b50 as UInt32, 20 as UInt16)
    bytes.append(contentsOf: common)
    let name = Array((localName ?? name).utf8)
    bytes.append(UInt16(name.count), 0 as UInt16)
    return bytes + name
  }

  /// Flags to sizes: what both headers of a file say.
  fileprivate var common: Data {
    var bytes = Data()
    let size = UInt32(claimedSize ?? contents.count)
    bytes.append(flags, method, 0 as UInt16, 0x21 as UInt16, 0 as UInt32, size, size)
    return bytes
  }
}

extension ZipWriter {
  /// A package of these files, by path below it.
  package static func package(_ files: KeyValuePairs<String, String>, named name: String = "net.mlpackage")
    -> ZipWriter
  {
    ZipWriter(entries: files.map { Entry(name: "\(name)/\($0.key)", contents: Array($0.value.utf8)) })
  }
}

extension Data {
  fileprivate mutating func append<each Number: FixedWidthInteger>(_ numbers: repeat each Number) {
    for number in repeat each numbers {
      Swift.withUnsafeBytes(of: number.littleEndian) { append(contentsOf: $0) }
    }
  }
}
