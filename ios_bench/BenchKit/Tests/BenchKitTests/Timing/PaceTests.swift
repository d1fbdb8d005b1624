import BenchKit
import Testing

@Suite("Pace")
struct PaceTests {
  @Test("Moments come at a steady rate, and a late one shifts the next")
  func moments() {
    var now: UInt64 = 100
    var slept: [UInt64] = []
    var pace = Pace(
      periodNanoseconds: 30, clock: { now },
      sleep: {
        slept.append($0)
        now += $0
      })
    var begun: [UInt64] = []
    for call: UInt64 in [10, 10, 70, 10, 0] {
      _ = pace.wait()
      begun.append(now)
      now += call
    }
    #expect(begun == [100, 130, 160, 230, 260])
    #expect(slept == [20, 20, 20])
  }
}
