/// Load options by name.
public typealias LoadOptions = [String: OptionValue]

/// The value of a load option.
public enum OptionValue: Sendable, Equatable {
  case bool(Bool)
  case int(Int)
  case string(String)

  package var json: JSON {
    switch self {
    case .bool(let value): .bool(value)
    case .int(let value): .integer(value)
    case .string(let value): .string(value)
    }
  }
}

/// One load option: its default, and its range or choices where it has some.
public enum OptionInfo: Sendable, Equatable {
  case bool(default: Bool)
  case int(default: Int, range: ClosedRange<Int>)
  case string(default: String, choices: [String])
  case text(default: String)

  package var json: JSON {
    switch self {
    case .bool(let value):
      .object(["type": .string("bool"), "default": .bool(value)])
    case .int(let value, let range):
      .object([
        "type": .string("int"), "default": .integer(value), "min": .integer(range.lowerBound),
        "max": .integer(range.upperBound),
      ])
    case .string(let value, let choices):
      .object([
        "type": .string("str"), "default": .string(value), "choices": .array(choices.map(JSON.string)),
      ])
    case .text(let value):
      .object(["type": .string("str"), "default": .string(value)])
    }
  }
}

/// A runtime as described in `hello`.
public struct RuntimeInfo: Sendable, Equatable {
  public let version: String
  public let backends: [String]
  public let options: [String: OptionInfo]

  public init(version: String, backends: [String], options: [String: OptionInfo]) {
    self.version = version
    self.backends = backends
    self.options = options
  }

  package var json: JSON {
    let described = options.sorted { $0.key < $1.key }.map { JSON.Field($0.key, $0.value.json) }
    return .object([
      "version": .string(version), "backends": .array(backends.map(JSON.string)),
      "options": .object(described),
    ])
  }
}

/// A backend that took parts of the program, and how many separate parts.
public struct Delegate: Sendable, Equatable {
  public let backend: String
  public let count: Int

  public init(backend: String, count: Int) {
    self.backend = backend
    self.count = count
  }

  package var json: JSON { .object(["backend": .string(backend), "count": .integer(count)]) }
}
