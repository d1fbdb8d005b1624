import BenchKit
import Foundation
import Observation

/// The agent as the app shows and steers it. Views read it and call it; all else is here.
@MainActor
@Observable
public final class AgentModel {
  public private(set) var activity = Activity()
  /// Reasons not to measure now. Not read while a client is connected: that could disturb what is timed.
  public private(set) var reasons: [Caveat] = []
  /// A change ends a connection: what was measured under other settings must not go on under these.
  public var settings: AgentSettings {
    didSet {
      if settings != oldValue { Task { await restart() } }
    }
  }
  /// What to type where `bench` asks for it; nil where the token came with the launch.
  public let pairingCode: String?
  /// The bundle that the app was launched for.
  public let launchedBundle: String?
  /// A bundle's progress; nil before one runs.
  public private(set) var bundleStatus: String?
  public private(set) var isRunningBundle = false
  @ObservationIgnored private let token: String
  @ObservationIgnored private let makeServer: (AgentSettings) -> AgentServer
  @ObservationIgnored private let probe: any DeviceProbe
  @ObservationIgnored private let foreground: Foreground
  @ObservationIgnored private var running: (server: AgentServer, events: Task<Void, Never>)?
  /// Whether a person stopped the agent; it listens no more until they start it again.
  @ObservationIgnored private var isStopped = false
  /// The server of the bundle that runs.
  @ObservationIgnored private var bundleServer: AgentServer?
  @ObservationIgnored private var moments = Moments()
  /// Number of the newest server; events of older ones are ignored.
  @ObservationIgnored private var generation = 0
  /// The last change of servers; the next one waits for it, because both want the same port.
  @ObservationIgnored private var replacing: Task<Void, Never>?

  /// `makeServer` makes a server that does not listen yet; it is called again where settings change.
  public init(
    launch: Launch, probe: any DeviceProbe, foreground: Foreground,
    makeServer: @escaping (AgentSettings) -> AgentServer
  ) {
    settings = launch.settings
    pairingCode = launch.isPairing ? launch.token : nil
    token = launch.token
    launchedBundle = launch.bundle
    self.probe = probe
    self.foreground = foreground
    self.makeServer = makeServer
  }

  public var isConnected: Bool { activity.status == .connected }

  /// Whether models may be timed now.
  public var isMeasuring: Bool { isConnected || isRunningBundle }

  /// Whether the agent listens or runs a bundle. The screen must not go dark then, which would put the app into the
  /// background.
  public var isRunning: Bool {
    if case .stopped = activity.status { isRunningBundle } else { true }
  }

  /// Tells that the app came to the front or left it; the task ends when all that follows is done. iOS may have
  /// taken the listening socket of an app that was away, so that one without a client listens again.
  @discardableResult
  public func phaseChanged(isActive: Bool) -> Task<Void, Never> {
    foreground.change(isActive: isActive)
    return Task {
      if isActive, !isConnected { await restart() }
      await refreshReasons()
    }
  }

  /// Cuts off a client, ends a bundle, whose journal is gone on with when it is run again, and listens no more.
  public func stop() async {
    isStopped = true
    await bundleServer?.stop()
    await restart()
  }

  /// Listens again.
  public func start() async {
    isStopped = false
    await restart()
  }

  /// Refreshes the device's state, unless it may be measuring.
  public func refreshReasons() async {
    guard !isConnected else { return }
    reasons = Readiness.reasons(now: await probe.read())
  }

  /// Runs a bundle in the place of clients, going on where its journal ends, and listens again behind it unless it was
  /// stopped; false where
  /// it did not get to its end.
  @discardableResult
  public func runBundle(_ bundle: URL, journal: URL) async -> Bool {
    guard !isRunningBundle else { return false }
    isRunningBundle = true
    await replacing?.value
    await stopServer()
    let server = makeServer(settings)
    bundleServer = server
    defer { bundleServer = nil }
    do {
      try await BundleRun.run(bundle.path, journal: journal.path, server: server, token: token) { line in
        Task { @MainActor [weak self] in self?.bundleStatus = line }
      }
      bundleStatus = "The bundle is run; its journal is \(journal.lastPathComponent)"
      isRunningBundle = false
    } catch {
      bundleStatus = error.localizedDescription
      isRunningBundle = false
      await restart()
      return false
    }
    await restart()
    return true
  }

  private func restart() async {
    guard !isRunningBundle else { return }
    let task = Task { [replacing] in
      await replacing?.value
      await replaceServer()
    }
    replacing = task
    await task.value
  }

  private func replaceServer() async {
    await stopServer()
    guard !isStopped else {
      activity.apply(.stopped(reason: nil))
      return
    }
    let server = makeServer(settings)
    let events = Task { [weak self, generation] in
      for await event in server.events { await self?.apply(event, from: generation) }
    }
    do {
      try await server.start()
      running = (server, events)
    } catch {
      events.cancel()
      activity.apply(.stopped(reason: "\(error)"))
    }
  }

  private func stopServer() async {
    generation += 1
    guard let (server, events) = running else { return }
    running = nil
    await server.stop()
    events.cancel()
  }

  private func apply(_ event: AgentEvent, from generation: Int) async {
    guard generation == self.generation else { return }
    let due = moments.take(event)
    if !due.isEmpty { activity = due.reduce(into: activity) { $0.apply($1) } }
    // The socket was taken while nobody looked. Where the app is away, its return starts the agent again.
    if case .stopped(_?) = event, foreground.isActive { await restart() }
  }
}
