import BenchKit
import Testing

/// Warming up by time ends where all agents end it.
@Suite("Ramps")
struct AdaptiveWarmUpTests {
  @Test("Golden ramps", arguments: Golden.json("ramps.json")["cases"]!.elements)
  func golden(entry: JSON) throws {
    let rounds = entry["rounds"]!.elements.flatMap { part in
      let times = part.elements[1].elements.map { UInt64($0.int!) }
      return [[UInt64]](repeating: times, count: part.elements[0].int!)
    }
    let warmUp = AdaptiveWarmUp(models: rounds[0].count, boundNanoseconds: UInt64(entry["bound_ns"]!.int!))
    let goesOn = rounds.map { warmUp.goesOn($0) }
    #expect(goesOn == [Bool](repeating: true, count: rounds.count - 1) + [false])
    #expect(warmUp.nanoseconds == UInt64(entry["ns"]!.int!))
    #expect(warmUp.rounds == rounds.count)
    #expect(.bool(warmUp.isSteady) == entry["steady"])
  }
}
