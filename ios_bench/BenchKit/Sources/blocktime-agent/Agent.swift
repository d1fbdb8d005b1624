import BenchKit
import CAgentVersion
import Foundation

/// The Swift agent on a machine that is not a phone.
@main
struct Agent {
  static func main() async {
    do {
      try await serve(
        try Options(
          arguments: Array(CommandLine.arguments.dropFirst()),
          environment: ProcessInfo.processInfo.environment))
    } catch let error as Options.Invalid {
      leave(2, error.message)
    } catch let error as BundleError {
      leave(6, error.localizedDescription)
    } catch let error as ListenError {
      leave(3, error.localizedDescription)
    } catch {
      leave(1, "the agent can't start: \(error.localizedDescription)")
    }
  }

  /// Serves until the process is ended.
  private static func serve(_ options: Options) async throws {
    setSignals()
    if options.watchesParent { ParentWatch.start() }
    let machine = try Machine(options)
    let store = try ModelStore(root: URL(fileURLWithPath: options.store), maxBytes: options.storeBytes)
    func config(_ token: String, _ port: UInt16) -> AgentConfig {
      AgentConfig(
        agent: AgentInfo(name: "blocktime-swift", version: BLOCKTIME_AGENT_VERSION), token: token, port: port,
        store: store, runtimes: machine.runtimes, probe: machine.probe, allowed: options.allowed)
    }
    if let bundle = options.bundle {
      let journal = options.journal ?? BundleRun.journal(beside: bundle)
      try await BundleRun.run(bundle, journal: journal, config: { config($0, 0) }, tell: note)
      print(journal)
      return
    }
    let server = AgentServer(config(options.token, options.port))
    let port = try await server.start()
    print(#"{"port": \#(port), "pid": \#(getpid())}"#)
    fflush(nil)
    for await case .stopped(let reason) in server.events {
      leave(1, "no longer listening: \(reason ?? "stopped")")
    }
  }

  private static func setSignals() {
    // A file over the process's size limit is to be an error of the write, not the end of the agent.
    signal(SIGXFSZ, SIG_IGN)
    // A crash is to end the agent at once. Swift's backtracer would stop all threads and write a report first, and
    // the client would wait for that, at times for ever.
    for crash in [SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV] { signal(crash, SIG_DFL) }
  }

  @Sendable private static func note(_ message: String) {
    FileHandle.standardError.write(Data("\(message)\n".utf8))
  }

  private static func leave(_ status: Int32, _ message: String) -> Never {
    FileHandle.standardError.write(Data("blocktime-agent: \(message)\n".utf8))
    exit(status)
  }
}
