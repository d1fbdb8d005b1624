import BenchKit
import Foundation
import Testing

/// The streams of protocol/golden and what its manifest says that they decode to.
enum Golden {
  struct Case: Sendable, CustomTestStringConvertible {
    let file: String
    let bytes: [UInt8]
    let frames: [Expected]
    /// `end`, or the code of the error that ends the stream.
    let ends: String
    /// A message's schema and whether the one frame keeps to it.
    let message: (schema: String, isValid: Bool)?

    var testDescription: String { file }
  }

  struct Expected: Sendable {
    /// Nil where the manifest only gives the header's size.
    let header: JSON?
    let headerBytes: Int?
    let payloadHex: String
  }

  static var requests: [Case] { cases.filter { $0.message?.schema.contains(".request.") == true } }

  static let cases: [Case] = {
    json("manifest.json")["cases"]!.elements.map { entry in
      let file = entry["file"]!.text!
      return Case(
        file: file, bytes: read(file),
        frames: entry["frames"]!.elements.map { frame in
          Expected(
            header: frame["header"], headerBytes: frame["header_bytes"]?.int,
            payloadHex: frame["payload_hex"]!.text!)
        },
        ends: entry["ends"]!.text!,
        message: entry["schema"].map { ($0.text!, entry["valid"] == .bool(true)) })
    }
  }()
}

extension Golden {
  /// A file of protocol/golden as JSON.
  static func json(_ name: String) -> JSON { try! JSONReader.read(read(name), maxDepth: 100) }

  private static func read(_ name: String) -> [UInt8] {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../../../../../protocol/golden").standardized
    return Array(try! Data(contentsOf: folder.appendingPathComponent(name)))
  }
}

extension JSON {
  var elements: [JSON] { if case .array(let values) = self { values } else { [] } }
  var text: String? { if case .string(let text) = self { text } else { nil } }
  var int: Int? { if case .integer(let number) = self { number } else { nil } }

  /// The same value with the keys of every object in order, so that it can be compared.
  var sorted: JSON {
    switch self {
    case .array(let values): .array(values.map(\.sorted))
    case .object(let fields):
      .object(fields.sorted { $0.key < $1.key }.map { Field($0.key, $0.value.sorted) })
    default: self
    }
  }
}
