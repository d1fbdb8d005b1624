import Foundation

/// A bundle that an agent of its own runs, going on where the journal ends.
public enum BundleRun {
  /// Default path of a bundle's journal.
  public static func journal(beside bundle: String) -> String { bundle + ".journal.jsonl" }

  /// Runs a bundle.
  ///
  /// Throws BundleError for a bundle or journal that can't be used, ListenError, and other errors where the device
  /// does not get ready, or its storage is full.
  ///
  /// - Parameters:
  ///   - config: makes the agent of a token, on any free port.
  ///   - tell: receives progress.
  public static func run(
    _ bundle: String, journal: String, config: (String) -> AgentConfig,
    tell: @escaping @Sendable (String) -> Void
  ) async throws {
    _ = try BundleFile(path: bundle)
    let token = (0..<4).map { _ in String(UInt64.random(in: .min ... .max), radix: 16) }.joined()
    try await run(bundle, journal: journal, server: AgentServer(config(token)), token: token, tell: tell)
  }

  /// As the above, with a server that does not listen yet and its token.
  public static func run(
    _ bundle: String, journal: String, server: AgentServer, token: String,
    tell: @escaping @Sendable (String) -> Void
  ) async throws {
    let port = try await server.start()
    let outcome = await onThread { try play(bundle, journal, port, token, tell) }
    await server.stop()
    try outcome.get()
  }

  private static func play(
    _ path: String, _ journal: String, _ port: UInt16, _ token: String,
    _ tell: @escaping @Sendable (String) -> Void
  ) throws {
    let bundle = try BundleFile(path: path)
    var progress = BundleProgress()
    let written = try BundleJournal(path: journal, bundleDigest: bundle.digest) { progress.add($0) }
    let agent = try Loopback(port: port)
    var player = BundlePlayer(bundle: bundle, journal: written, progress: progress, agent: agent, tell: tell)
    try player.run(token: token)
  }

  /// Waits for `work` on a thread of its own, which it may block.
  private static func onThread(_ work: @escaping @Sendable () throws -> Void) async -> Result<Void, any Error>
  {
    await withCheckedContinuation { continuation in
      let thread = Thread { continuation.resume(returning: Result(catching: work)) }
      thread.name = "blocktime-bundle"
      thread.stackSize = 8 << 20
      thread.start()
    }
  }
}
