/// Reads a loaded model's placement, which may take as long as its load; nil if the runtime does not report it.
public typealias PlacementReader = @Sendable () async -> Placement?

/// Which unit of the device runs which operation of a loaded model.
public struct Placement: Sendable, Equatable {
  /// A unit that executes operations; the raw value is its name on the wire.
  public enum Unit: String, Sendable, CaseIterable {
    case cpu
    case gpu
    case neuralEngine = "neural_engine"
  }

  /// An operation of the program and the unit that the runtime chose for it.
  public struct Operation: Sendable, Equatable {
    public let name: String
    public let type: String
    public let unit: Unit
    /// Share of the model's cost that the runtime estimates, 0 to 1; nil if it does not report it.
    public let cost: Double?

    public init(name: String, type: String, unit: Unit, cost: Double?) {
      self.name = name
      self.type = type
      self.unit = unit
      self.cost = cost
    }

    package var json: JSON {
      .object([
        "name": .string(name), "type": .string(type), "unit": .string(unit.rawValue), "cost": .optional(cost),
      ])
    }
  }

  /// Operations in program order.
  public let operations: [Operation]

  public init(operations: [Operation]) {
    self.operations = operations
  }

  /// Number of operations on `unit`.
  public func count(on unit: Unit) -> Int { operations.count { $0.unit == unit } }

  /// The counts, and the operations unless the reply's header would get too large with them.
  package var json: JSON {
    let counts = Unit.allCases.map { JSON.Field($0.rawValue, .integer(count(on: $0))) }
    return .object(counts + [.init("operations", .array(listed.map(\.json)))])
  }

  private var listed: [Operation] {
    let textBytes = operations.reduce(0) { $0 + $1.name.utf8.count + $1.type.utf8.count }
    let fits = operations.count <= Limits.operations && textBytes <= Limits.placementTextBytes
    return fits ? operations : []
  }
}
