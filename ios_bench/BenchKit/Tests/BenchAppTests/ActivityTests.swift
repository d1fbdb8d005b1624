import BenchApp
import BenchKit
import Testing

@Suite("Activity on the screen")
struct ActivityTests {
  private func after(_ events: AgentEvent...) -> Activity {
    var activity = Activity()
    for event in events { activity.apply(event) }
    return activity
  }

  @Test("Connecting and leaving")
  func status() {
    #expect(after().status == .stopped(reason: nil))
    #expect(after(.listening(port: 1)).status == .listening)
    #expect(after(.listening(port: 1), .connected).status == .connected)
    #expect(after(.listening(port: 1), .connected, .disconnected).status == .listening)
    #expect(after(.listening(port: 1), .connected, .stopped(reason: "x")).status == .stopped(reason: "x"))
    #expect(
      after(.connected, .stopped(reason: "x"), .disconnected).status == .stopped(reason: "x"),
      "a session that ends after its server does not revive it")
  }

  @Test("Work is shown until it is done, refused or left")
  func work() {
    let working = AgentEvent.working("timing 3 models")
    #expect(after(.connected, working).work == "timing 3 models")
    #expect(after(.connected, working, .refused(code: .badModel, message: "no")).work == nil)
    #expect(after(.connected, working, .disconnected).work == nil)
    #expect(after(.connected, working, .listening(port: 1)).work == nil, "a new server knows nothing of it")
    #expect(after(.connected, working, .stopped(reason: nil)).work == nil)
  }

  @Test("A finished run is shown with what comes next")
  func finishedRuns() {
    let run = AgentEvent.measured(RunResult(rounds: 1, entries: []))
    var moments = Moments()
    #expect(moments.take(.connected) == [.connected])
    for _ in 1...12 { #expect(moments.take(run).isEmpty) }
    #expect(moments.take(.disconnected) == [AgentEvent](repeating: run, count: 10) + [.disconnected])
    #expect(moments.take(.connected) == [.connected])
  }

  @Test("The last five refusals are kept, newest first, with their codes")
  func refusals() {
    var activity = Activity()
    for number in 1...7 { activity.apply(.refused(code: .notReady, message: "\(number)")) }
    #expect(activity.refusals.map(\.message) == ["7", "6", "5", "4", "3"])
    #expect(activity.refusals[0].code == "not_ready")
  }
}
