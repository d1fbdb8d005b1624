import Foundation

/// A bundle, or a journal of one, that can't be used; one line for people.
public struct BundleError: LocalizedError {
  public let errorDescription: String?

  init(_ message: String) { errorDescription = message }
}

/// A bundle of PROTOCOL.md, "Bundles", whose files are all there. Models are checked as they are stored.
struct BundleFile {
  static let format = 1
  static let textBytes = 8 << 20
  static let maxFiles = 4096

  let path: String
  let manifestText: [UInt8]
  let plan: [UInt8]
  let digest: String
  let deviceKind: String
  let script: Script
  private let places: [String: Range<Int>]

  /// Throws BundleError where it is damaged, of another version, or not whole.
  init(path: String) throws {
    self.path = path
    guard let file = FileHandle(forReadingAtPath: path) else {
      throw BundleError("\(path) can't be read; copy the bundle again")
    }
    defer { try? file.close() }
    places = try Tar.places(in: file, path: path, maxFiles: Self.maxFiles)
    manifestText = try Self.text("manifest.json", places, file, path)
    digest = sha256(manifestText)
    let manifest = try Self.object(manifestText, "manifest.json", path)
    try Self.checkVersions(manifest, path)
    deviceKind = manifest["device_kind"]?.text ?? "another device"
    guard case .object(let files)? = manifest["files"] else { throw Tar.notABundle(path) }
    for file in files where places[file.key]?.count != file.value["bytes"]?.int {
      throw BundleError("\(path): \(file.key) is missing or cut short; copy the bundle again")
    }
    plan = try Self.checked("plan.json", manifest, places, file, path)
    let scriptText = try Self.checked("script.json", manifest, places, file, path)
    guard let script = Script(try Self.object(scriptText, "script.json", path)) else {
      throw BundleError("\(path): script.json is invalid; make the bundle again")
    }
    let named = Set(files.map(\.key))
    if let missing = script.batches.flatMap(\.slots).first(where: { !named.contains("models/" + $0) }) {
      throw BundleError("\(path): the model \(missing.prefix(12)) is missing; make the bundle again")
    }
    self.script = script
  }

  /// Gives a model's bytes to `body`, in pieces; nil where the bundle has no such model.
  func model(_ sha256: String) -> Range<Int>? { places["models/" + sha256] }

  private static func checkVersions(_ manifest: JSON, _ path: String) throws {
    let (form, version) = (manifest["format"]?.int, manifest["protocol"]?.int)
    guard form == format else {
      throw BundleError(
        "\(path) is a bundle of format \(form ?? 0), not \(format); make it again with bench bundle")
    }
    guard version == protocolVersion else {
      throw BundleError(
        "\(path) is a bundle for protocol \(version ?? 0), and this is \(protocolVersion); "
          + "take bundle, agent and bench of the same version")
    }
  }

  private static func checked(
    _ name: String, _ manifest: JSON, _ places: [String: Range<Int>], _ file: FileHandle, _ path: String
  ) throws -> [UInt8] {
    let content = try text(name, places, file, path)
    guard sha256(content) == manifest["files"]?[name]?["sha256"]?.text else {
      throw BundleError("\(path): \(name) was changed; copy the bundle again")
    }
    return content
  }

  private static func text(
    _ name: String, _ places: [String: Range<Int>], _ file: FileHandle, _ path: String
  ) throws -> [UInt8] {
    guard let place = places[name], place.count <= textBytes else { throw Tar.notABundle(path) }
    return try file.bytes(place)
  }

  private static func object(_ text: [UInt8], _ name: String, _ path: String) throws -> JSON {
    do {
      return try JSONReader.read(text)
    } catch let error as JSONError {
      throw BundleError("\(path): \(name) is invalid (\(error.message))")
    }
  }
}

/// Positions of the files of an uncompressed tar.
enum Tar {
  /// Bytes of a header, and what contents are filled up to.
  private static let block = 512

  static func places(in file: FileHandle, path: String, maxFiles: Int) throws -> [String: Range<Int>] {
    let end = Int(try file.seekToEnd())
    var found: [String: Range<Int>] = [:]
    var offset = 0
    while offset + block <= end {
      let header = try file.bytes(offset..<offset + block)
      if header.allSatisfy({ $0 == 0 }) { return found }
      let name = text(header[0..<100])
      let size = text(header[124..<136]).trimmingCharacters(in: .whitespaces)
      guard let bytes = Int(size, radix: 8), bytes >= 0, [0, UInt8(ascii: "0")].contains(header[156]),
        found[name] == nil, found.count < maxFiles, bytes <= end - offset - block
      else { throw notABundle(path) }
      found[name] = offset + block..<offset + block + bytes
      offset += block + (bytes + block - 1) / block * block
    }
    throw notABundle(path)
  }

  static func notABundle(_ path: String) -> BundleError {
    BundleError("\(path) is not a bundle of bench, or cut short; copy it again")
  }

  private static func text(_ bytes: ArraySlice<UInt8>) -> String {
    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
  }
}

extension FileHandle {
  /// The bytes of a part of the file. Throws BundleError where it has ended before.
  func bytes(_ place: Range<Int>) throws -> [UInt8] {
    try seek(toOffset: UInt64(place.lowerBound))
    let data = try read(upToCount: place.count) ?? Data()
    guard data.count == place.count else { throw BundleError("the bundle ended too early; copy it again") }
    return [UInt8](data)
  }
}

/// SHA-256 in hexadecimal digits.
func sha256(_ bytes: [UInt8]) -> String {
  var hash = ContentHash()
  bytes.withUnsafeBytes { hash.update($0) }
  return hash.finish()
}

extension JSON {
  var text: String? { if case .string(let text) = self { text } else { nil } }
  var int: Int? { if case .integer(let number) = self { number } else { nil } }
  var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
  var items: [JSON]? { if case .array(let items) = self { items } else { nil } }
  var fields: [Field] { if case .object(let fields) = self { fields } else { [] } }

  var double: Double? {
    switch self {
    case .integer(let number): Double(number)
    case .number(let number): number
    default: nil
    }
  }

  /// An object without some of its fields.
  func without(_ names: String...) -> JSON { .object(fields.filter { !names.contains($0.key) }) }
}
