import BenchApp
import BenchKit
import Testing

@Suite("Launch")
struct LaunchTests {
  @Test("A token that came with the launch is used and not shown")
  func launched() {
    let launch = Launch(environment: [
      "BLOCKTIME_TOKEN": "secret", "BLOCKTIME_ALLOW": "debuggable_build,no_such_reason,throttled",
    ])
    #expect(launch.token == "secret")
    #expect(!launch.isPairing)
    #expect(launch.settings == AgentSettings(allowed: [.debuggableBuild, .throttled], keepWarm: false))
  }

  @Test("A bundle is named by an argument of the launch")
  func bundle() {
    #expect(Launch(environment: [:], arguments: ["app", "--bundle", "xxs.bundle"]).bundle == "xxs.bundle")
    #expect(Launch(environment: [:], arguments: ["app", "--bundle"]).bundle == nil)
    #expect(Launch(environment: [:]).bundle == nil)
  }

  @Test(
    "An app started by hand makes a code that nobody else knows", arguments: [[:], ["BLOCKTIME_TOKEN": ""]])
  func tapped(environment: [String: String]) {
    let codes = (0..<50).map { _ in Launch(environment: environment) }
    #expect(codes.allSatisfy { $0.isPairing && $0.settings.allowed.isEmpty })
    #expect(Set(codes.map(\.token)).count == 50)
  }

  @Test("A pairing code has eight characters, none of which is easily taken for another")
  func alphabet() {
    var generator = Cycle()
    let codes = (0..<100).map { _ in PairingCode.make(using: &generator) }
    #expect(codes.allSatisfy { $0.count == PairingCode.length })
    let used = Set(codes.joined())
    #expect(used == Set("ABCDEFGHJKMNPQRSTUVWXYZ23456789"))
  }
}

/// Goes through all high bytes, so that every character is met.
private struct Cycle: RandomNumberGenerator {
  private var state: UInt64 = 0

  mutating func next() -> UInt64 {
    state &+= 0x0123_4567_89AB_CDEF
    return state
  }
}
