import BenchKit
import Testing

@Suite("Readiness")
struct ReadinessTests {
  private func reading(_ change: (inout DeviceReading) -> Void = { _ in }) -> DeviceReading {
    var state = DeviceState(uptimeNanoseconds: 1)
    state.thermalState = .nominal
    state.lowPowerMode = false
    state.foreground = true
    var reading = DeviceReading(state: state, isDebuggable: false)
    change(&reading)
    return reading
  }

  private func reasons(_ change: (inout DeviceReading) -> Void) -> [Caveat] {
    Readiness.reasons(now: reading(change))
  }

  @Test("A device in good state has no reason")
  func nothing() {
    #expect(reasons { _ in }.isEmpty)
  }

  @Test("A device that tells nothing has no reason: nothing is guessed")
  func unknown() {
    let silent = DeviceReading(state: DeviceState(uptimeNanoseconds: 1), isDebuggable: false)
    #expect(Readiness.reasons(now: silent).isEmpty)
  }

  @Test("Each bad state is its own reason")
  func each() {
    #expect(reasons { $0.isDebuggable = true } == [.debuggableBuild])
    #expect(reasons { $0.state.lowPowerMode = true } == [.powerSave])
    #expect(reasons { $0.state.foreground = false } == [.background])
    #expect(reasons { $0.state.thermalState = .fair }.isEmpty)
    #expect(reasons { $0.state.thermalState = .serious } == [.throttled])
    #expect(reasons { $0.state.thermalState = .critical } == [.throttled])
  }

  @Test(
    "A battery is low under 15 %, while it charges under 5 %",
    arguments: [
      (15.0, false, false), (14.9, false, true), (14.9, true, false), (5.0, true, false), (4.9, true, true),
    ])
  func battery(percent: Double, charging: Bool, isLow: Bool) {
    let found = reasons { $0.state.battery = .init(percent: percent, charging: charging, celsius: nil) }
    #expect(found == (isLow ? [.lowBattery] : []))
  }

  @Test("An app that was away during the run is found even when it is back")
  func away() {
    let before = reading { $0.foregroundLosses = 1 }
    let after = reading { $0.foregroundLosses = 2 }
    #expect(Readiness.reasons(now: after, since: before) == [.background])
    #expect(Readiness.reasons(now: after, since: after).isEmpty)
  }

  @Test("What is not allowed throws and names all of it; what is allowed is told")
  func allowance() throws {
    let bad = reading {
      $0.isDebuggable = true
      $0.state.lowPowerMode = true
    }
    #expect(
      try Readiness.require(bad, allowed: [.debuggableBuild, .powerSave]) == [.debuggableBuild, .powerSave])
    do {
      _ = try Readiness.require(bad, allowed: [.debuggableBuild])
      Issue.record("power_save is not allowed")
    } catch let error as OpError {
      #expect(error.code == .notReady)
      #expect(error.message.contains("power_save"))
      #expect(!error.message.contains("debuggable_build"))
    }
  }
}
