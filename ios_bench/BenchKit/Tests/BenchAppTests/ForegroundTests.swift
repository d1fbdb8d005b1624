import BenchApp
import BenchKit
import Testing

@Suite("Foreground")
struct ForegroundTests {
  @Test("Only leaving counts, and only once until the app is back")
  func counts() {
    let foreground = Foreground()
    #expect(!foreground.isActive && foreground.losses == 0)
    var seen: [Int] = []
    for isActive in [false, true, true, false, false, true, false] {
      foreground.change(isActive: isActive)
      seen.append(foreground.losses)
      #expect(foreground.isActive == isActive)
    }
    #expect(seen == [0, 0, 0, 1, 1, 1, 2])
  }

  @Test("A batch during which the app was sent away and called back is refused")
  func awayInABatch() throws {
    let foreground = Foreground()
    foreground.change(isActive: true)
    let before = reading(foreground)
    #expect(try Readiness.require(before, allowed: []).isEmpty)
    foreground.change(isActive: false)
    foreground.change(isActive: true)
    #expect(Readiness.reasons(now: reading(foreground), since: before) == [.background])
    #expect(throws: OpError.self) { try Readiness.require(reading(foreground), since: before, allowed: []) }
    #expect(try Readiness.require(reading(foreground), allowed: []).isEmpty, "the next batch is good again")
  }

  private func reading(_ foreground: Foreground) -> DeviceReading {
    var state = DeviceState(uptimeNanoseconds: 1)
    state.foreground = foreground.isActive
    return DeviceReading(state: state, isDebuggable: false, foregroundLosses: foreground.losses)
  }
}
