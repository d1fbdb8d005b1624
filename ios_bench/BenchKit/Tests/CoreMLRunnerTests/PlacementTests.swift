import BenchKit
import CoreMLRunner
import Testing

@Suite("Placement of operations", .needsStandIn)
struct PlacementTests {
  private let place: Workplace

  init() throws { place = try Workplace() }

  private static let plan = """
    {"plan": [
      {"name": "w", "type": "const", "unit": {"*": "cpu"}, "cost": 0},
      {"name": "x", "type": "ios16.conv", "unit": {"cpuOnly": "cpu", "*": "neural_engine"}, "cost": 0.75},
      {"name": "c", "type": "ios16.cond", "unit": {"*": "cpu"}, "cost": 0, "body": [
        {"name": "k", "type": "const", "unit": {"*": "cpu"}},
        {"name": "y", "type": "ios16.linear", "unit": {"cpuOnly": "cpu", "*": "gpu"}, "cost": 0.25}]},
      {"name": "unknown", "type": "ios16.constexpr_affine_dequantize"},
      {"name": "z", "type": "ios16.softmax", "unit": {"*": "cpu"}, "cost": 1.5}]}
    """

  @Test(
    "Operations come in program order with unit and cost, nested ones after their parent; constants do not")
  func operations() async throws {
    let placement = try #require(await placed(on: "all"))
    #expect(
      placement.operations == [
        .init(name: "x", type: "ios16.conv", unit: .neuralEngine, cost: 0.75),
        .init(name: "c", type: "ios16.cond", unit: .cpu, cost: 0),
        .init(name: "y", type: "ios16.linear", unit: .gpu, cost: 0.25),
        .init(name: "z", type: "ios16.softmax", unit: .cpu, cost: nil),
      ])
  }

  @Test("The plan is that of the units asked for")
  func units() async throws {
    let onCPU = try #require(await placed(on: "cpuonly"))
    #expect(onCPU.operations.map(\.unit) == [.cpu, .cpu, .cpu, .cpu])
    let onAll = try #require(await placed(on: "all"))
    #expect([Placement.Unit.cpu, .gpu, .neuralEngine].map(onAll.count) == [2, 1, 1])
  }

  @Test("Later loads tell the same, with the units of each")
  func repeated() async throws {
    let client = Client(try place.runtime())
    let model = try place.model(Self.plan)
    var units: [[Placement.Unit]?] = []
    for choice in ["all", "cpuonly", "all"] {
      units.append(try await client.placement(model, units: choice)?.operations.map(\.unit))
    }
    #expect(units == [[.neuralEngine, .cpu, .gpu, .cpu], [.cpu, .cpu, .cpu, .cpu], units[0]])
  }

  @Test("Without a plan there is no placement, and the model is loaded all the same")
  func noPlan() async throws {
    let model = try place.model("{}")
    #expect(try await Client(place.runtime()).placement(model) == nil)
  }

  private func placed(on units: String) async throws -> Placement? {
    try await Client(place.runtime()).placement(place.model(Self.plan), units: units)
  }
}
