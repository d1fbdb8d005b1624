import BenchApp
import BenchKit
import Fixtures
import Foundation
import Testing

@Suite("Model of the app", .timeLimit(.minutes(1)))
@MainActor
struct AgentModelTests {
  private let foreground = Foreground()
  private let servers: Servers

  init() throws { servers = try Servers() }

  @Test("The app listens when it comes to the front, and keeps the screen on")
  func comesToFront() async throws {
    let model = makeModel()
    #expect(!model.isRunning)
    await model.phaseChanged(isActive: true).value
    try await reaches(.listening, model)
    #expect(model.isRunning)
    await servers.stop()
  }

  @Test("Away and back it listens anew: iOS takes the sockets of apps that are suspended")
  func awayAndBack() async throws {
    let model = makeModel()
    for isActive in [true, false, true] { await model.phaseChanged(isActive: isActive).value }
    #expect(servers.made.count == 2)
    #expect(foreground.losses == 1)
    try await reaches(.listening, model)
    await servers.stop()
  }

  // Darwin has no way to break a listening socket from outside of its owner.
  #if os(Linux)
    @Test("A listening socket that is lost while the app is in front is replaced")
    func lostSocket() async throws {
      let model = makeModel()
      await model.phaseChanged(isActive: true).value
      let port = try await servers.port()
      try breakListener(on: port)
      while servers.made.count < 2 { try await Task.sleep(for: .milliseconds(1)) }
      try await reaches(.listening, model)
      await servers.stop()
    }

  #endif

  @Test("Changes that come while another one is under way take their turn")
  func turns() async throws {
    let port = try HeldPort()
    defer { withExtendedLifetime(port) {} }
    let model = makeModel(port: port.number)
    let tasks = [true, false, true, true].map { model.phaseChanged(isActive: $0) }
    model.settings.keepWarm = true
    for task in tasks { await task.value }
    while servers.made.last != AgentSettings(keepWarm: true) { try await Task.sleep(for: .milliseconds(1)) }
    try await reaches(.listening, model)
    await servers.stop()
  }

  @Test("New settings are served by a new server; the same ones change nothing")
  func settings() async throws {
    let model = makeModel(environment: ["BLOCKTIME_ALLOW": "throttled"])
    await model.phaseChanged(isActive: true).value
    #expect(servers.made == [AgentSettings(allowed: [.throttled])])
    model.settings[allows: .throttled] = true
    model.settings[allows: .lowBattery] = true
    model.settings[allows: .throttled] = false
    model.settings.keepWarm = true
    while servers.made.count < 4 { try await Task.sleep(for: .milliseconds(1)) }
    #expect(servers.made.last == AgentSettings(allowed: [.lowBattery], keepWarm: true))
    try await reaches(.listening, model)
    await servers.stop()
  }

  @Test("The code is shown only where the launch brought no token")
  func code() {
    #expect(makeModel().pairingCode?.count == 8)
    #expect(makeModel(environment: ["BLOCKTIME_TOKEN": "t"]).pairingCode == nil)
  }

  @Test("Reasons not to measure are shown before a client comes")
  func reasons() async {
    let model = makeModel(lowPowerMode: true)
    await model.phaseChanged(isActive: false).value
    #expect(model.reasons == [.powerSave, .background])
    await model.phaseChanged(isActive: true).value
    #expect(model.reasons == [.powerSave])
    await servers.stop()
  }

  @Test("A port that is taken is told, and a later return to the front tries again")
  func portInUse() async throws {
    let other = servers.make(AgentSettings(), probe: FakeProbe(foreground), port: 0)
    let port = try await other.start()
    let model = makeModel(port: port)
    await model.phaseChanged(isActive: true).value
    guard case .stopped(let reason?) = model.activity.status else {
      Issue.record("it can't listen on \(port)")
      return
    }
    #expect(reason.contains("port \(port) is in use"))
    #expect(!model.isRunning)
    await other.stop()
    await model.phaseChanged(isActive: true).value
    try await reaches(.listening, model)
    await servers.stop()
  }

  @Test("A client is shown, what it has measured stays after it left, the last ten of it")
  func measures() async throws {
    servers.runtimes = [FakeRuntime {}]
    let (model, client) = try await connected()
    for rounds in 1...12 { #expect(try await client.measure(rounds: rounds)["rounds"] == .integer(rounds)) }
    try await client.leave()
    try await reaches(.listening, model)
    #expect(model.activity.results.map(\.title) == (3...12).reversed().map { "1 models, \($0) rounds" })
    let line = try #require(model.activity.results[0].lines.first)
    #expect(line.model == "9372c470 fake")
    #expect(line.latency.hasSuffix(" ms"))
    #expect(Set(model.activity.results.map(\.id)).count == 10)
    #expect(model.activity.work == nil)
    await servers.stop()
  }

  @Test("A batch during which the app was sent to the background is refused, and the refusal shown")
  func backgroundInABatch() async throws {
    servers.runtimes = [
      FakeRuntime { [foreground] in
        foreground.change(isActive: false)
        foreground.change(isActive: true)
      }
    ]
    let (model, client) = try await connected()
    let reply = try await client.measure(rounds: 2)
    #expect(reply["error"]?["code"] == .string("not_ready"))
    try await client.leave()
    try await reaches(.listening, model)
    #expect(model.activity.refusals.map(\.code) == ["not_ready"])
    #expect(model.activity.results.isEmpty)
    await servers.stop()
  }

  @Test("While a client is connected, coming back to the front does not cut it off")
  func keepsItsClient() async throws {
    let (model, client) = try await connected()
    for isActive in [false, true] { await model.phaseChanged(isActive: isActive).value }
    #expect(servers.made.count == 1)
    #expect(try await client.request("state")["state"]?["foreground"] == .bool(true))
    await servers.stop()
  }

  @Test("A change of settings ends a connection; the next client is served under the new ones")
  func changeWhileConnected() async throws {
    let (model, client) = try await connected()
    model.settings[allows: .throttled] = true
    while servers.made.count < 2 { try await Task.sleep(for: .milliseconds(1)) }
    try await reaches(.listening, model)
    await #expect(throws: (any Error).self) { try await client.request("state") }
    let next = try Client(port: try await servers.port())
    #expect(try await next.hello()["protocol"] == .integer(1))
    try await reaches(.connected, model)
    await servers.stop()
  }

  @Test("Stopped by hand it serves nobody until it is started, also when it comes back")
  func stops() async throws {
    let (model, client) = try await connected()
    #expect(model.isMeasuring)
    await model.stop()
    #expect(model.activity.status == .stopped(reason: nil))
    #expect(!model.isRunning && !model.isMeasuring)
    await #expect(throws: (any Error).self) { try await client.request("state") }
    model.settings.keepWarm = true
    for isActive in [false, true] { await model.phaseChanged(isActive: isActive).value }
    #expect(!model.isRunning)
    #expect(servers.made.count == 1)
    await model.start()
    try await reaches(.listening, model)
    #expect(model.isRunning)
    await servers.stop()
  }

  @Test("A bundle ends where it is stopped, and goes on when it is run again")
  func stopsBundle() async throws {
    servers.runtimes = [FakeRuntime { usleep(1000) }]
    let model = makeModel(environment: ["BLOCKTIME_TOKEN": "t"])
    await model.phaseChanged(isActive: true).value
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let bundle = folder.appendingPathComponent("long.bundle")
    try writeBundle(runs: 10_000, to: bundle)
    let isDone = Task { await model.runBundle(bundle, journal: BundleFiles.journal(of: bundle)) }
    while model.bundleStatus?.contains("rounds") != true {
      try #require(model.bundleStatus == nil || model.isRunningBundle, "\(model.bundleStatus ?? "")")
      try await Task.sleep(for: .milliseconds(1))
    }
    #expect(model.isRunning && model.isMeasuring)
    await model.stop()
    #expect(await !isDone.value)
    #expect(model.bundleStatus?.hasSuffix("run the bundle again, it goes on") == true)
    #expect(!model.isRunning && !model.isMeasuring)
    #expect(model.activity.status == .stopped(reason: nil))
    await model.start()
    try await reaches(.listening, model)
    await servers.stop()
  }

  /// A model that is at the front and listens, and a client that has said hello.
  private func connected() async throws -> (AgentModel, Client) {
    let model = makeModel()
    await model.phaseChanged(isActive: true).value
    let client = try Client(port: try await servers.port())
    #expect(try await client.hello()["protocol"] == .integer(1))
    try await reaches(.connected, model)
    return (model, client)
  }

  private func makeModel(
    environment: [String: String] = [:], port: UInt16 = 0, lowPowerMode: Bool = false
  ) -> AgentModel {
    let probe = FakeProbe(foreground, lowPowerMode: lowPowerMode)
    return AgentModel(launch: Launch(environment: environment), probe: probe, foreground: foreground) {
      settings in
      servers.make(settings, probe: probe, port: port)
    }
  }

  /// Events arrive a little later; a status that never comes ends in the suite's own time limit.
  private func reaches(_ status: Activity.Status, _ model: AgentModel) async throws {
    while model.activity.status != status { try await Task.sleep(for: .milliseconds(1)) }
  }
}
