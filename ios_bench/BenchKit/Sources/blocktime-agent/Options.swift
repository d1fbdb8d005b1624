import BenchKit
import Foundation

/// The command line that every agent on a host takes, and what comes in the environment.
struct Options {
  static let usage =
    "usage: blocktime-agent --store DIR [--store-bytes N] [--port N] [--parent-watch] [--simulate PRODUCT] "
    + "[--bundle FILE [--journal FILE]]"

  /// The command line, or the environment, can't be used.
  struct Invalid: Error {
    let message: String
  }

  private(set) var store = ""
  private(set) var storeBytes = ModelStore.defaultMaxBytes
  private(set) var port: UInt16 = 0
  private(set) var watchesParent = false
  private(set) var simulatedProduct: String?
  private(set) var bundle: String?
  private(set) var journal: String?
  let token: String
  let allowed: Set<Caveat>

  init(arguments: [String], environment: [String: String]) throws {
    token = environment["BLOCKTIME_TOKEN"] ?? ""
    allowed = try Self.allowed(environment["BLOCKTIME_ALLOW"] ?? "")
    var rest = arguments[...]
    while let option = rest.popFirst() {
      switch option {
      case "--store": store = try Self.value(of: option, &rest)
      case "--store-bytes": storeBytes = try Self.number(option, &rest, in: 1...Int.max)
      case "--port": port = UInt16(try Self.number(option, &rest, in: 0...65_535))
      case "--parent-watch": watchesParent = true
      case "--simulate": simulatedProduct = try Self.value(of: option, &rest)
      case "--bundle": bundle = try Self.value(of: option, &rest)
      case "--journal": journal = try Self.value(of: option, &rest)
      default: throw Invalid(message: "unknown option \(option); \(Self.usage)")
      }
    }
    guard !token.isEmpty || bundle != nil else {
      throw Invalid(message: "the agent needs a token; set BLOCKTIME_TOKEN")
    }
    guard !store.isEmpty else { throw Invalid(message: "--store is missing; \(Self.usage)") }
  }

  private static func value(of option: String, _ rest: inout ArraySlice<String>) throws -> String {
    guard let value = rest.popFirst(), !value.isEmpty else {
      throw Invalid(message: "\(option) needs a value; \(usage)")
    }
    return value
  }

  private static func number(
    _ option: String, _ rest: inout ArraySlice<String>, in range: ClosedRange<Int>
  ) throws -> Int {
    let text = try value(of: option, &rest)
    guard let number = Int(text), range.contains(number) else {
      throw Invalid(message: "\(option) must be a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  private static func allowed(_ names: String) throws -> Set<Caveat> {
    Set(
      try names.split(separator: ",").map { name in
        guard let caveat = Caveat(rawValue: String(name)) else {
          let known = Caveat.allCases.map(\.rawValue).joined(separator: ", ")
          throw Invalid(message: "BLOCKTIME_ALLOW: no reason \(name); there are: \(known)")
        }
        return caveat
      })
  }
}
