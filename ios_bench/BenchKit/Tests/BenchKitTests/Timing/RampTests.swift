import BenchKit
import Testing

/// Warming up by time ends where all agents end it.
@Suite("Ramps")
struct RampTests {
  @Test("Golden ramps", arguments: Golden.json("ramps.json")["cases"]!.elements)
  func golden(entry: JSON) throws {
    let rounds = entry["rounds"]!.elements.flatMap { part in
      let times = part.elements[1].elements.map { UInt64($0.int!) }
      return [[UInt64]](repeating: times, count: part.elements[0].int!)
    }
    let ramp = Ramp(models: rounds[0].count, boundNanoseconds: UInt64(entry["bound_ns"]!.int!))
    let goesOn = rounds.map { ramp.goesOn($0) }
    #expect(goesOn == [Bool](repeating: true, count: rounds.count - 1) + [false])
    #expect(ramp.nanoseconds == UInt64(entry["ns"]!.int!))
    #expect(ramp.rounds == rounds.count)
    #expect(.bool(ramp.isSteady) == entry["steady"])
  }
}
