import BenchKit
import CoreMLRunner
import Foundation

#if EXECUTORCH
  import ExecuTorchRunner
#endif

/// Puts the agent of an iPhone together.
public enum PhoneAgent {
  /// Where `bench` looks for the agent through usbmux.
  public static let port: UInt16 = 47613

  /// The model of the app. Throws where the app's folders can't be made.
  ///
  /// - Parameters:
  ///   - caches: folder for received and for compiled models. The system may empty it while the app does not run,
  ///     and backs none of it up; `bench` sends again what is missing.
  ///   - system: OS version and build.
  ///   - version: the agent's, which changes with its sources.
  @MainActor
  public static func makeModel(
    launch: Launch, probe: any DeviceProbe, foreground: Foreground, caches: URL, system: String,
    version: String, port: UInt16 = port, freeMemoryBytes: @escaping @Sendable () -> Int?
  ) throws -> AgentModel {
    let store = try ModelStore(root: caches.appendingPathComponent("models"))
    let compiled = caches.appendingPathComponent("coreml")
    var runtimes: [any Runtime] = [
      try CoreMLRuntime(
        cache: compiled, system: system, freeMemoryBytes: freeMemoryBytes,
        freeDiskBytes: { freeBytes(at: compiled) })
    ]
    #if EXECUTORCH
      let cores = probe.describe().cores
      runtimes.append(
        ExecuTorchRuntime(cores: Array(0..<cores), defaultThreads: cores, freeMemoryBytes: freeMemoryBytes))
    #endif
    return AgentModel(launch: launch, probe: probe, foreground: foreground) { [runtimes] settings in
      AgentServer(
        AgentConfig(
          agent: AgentInfo(name: "blocktime-ios", version: version), token: launch.token, port: port,
          store: store, runtimes: runtimes, probe: probe, allowed: settings.allowed,
          keepWarm: settings.keepWarm))
    }
  }

  #if os(iOS)
    /// The model of this app, as it was launched; a test that is hosted in the app finds it here.
    @MainActor public static let app = Result { try makeModel() }

    @MainActor
    private static func makeModel() throws -> AgentModel {
      let foreground = Foreground()
      let probe = PhoneProbe(foreground: foreground)
      let caches = try FileManager.default.url(
        for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
      // Written by a build phase, from the sources that it was built of.
      let version = Bundle.main.object(forInfoDictionaryKey: "BlocktimeAgentVersion") as? String
      return try makeModel(
        launch: Launch(
          environment: ProcessInfo.processInfo.environment, arguments: ProcessInfo.processInfo.arguments),
        probe: probe,
        foreground: foreground, caches: caches, system: probe.system,
        version: version ?? "unknown", freeMemoryBytes: PhoneProbe.freeMemoryBytes)
    }
  #endif

  private static func freeBytes(at folder: URL) -> Int? {
    let attributes = try? FileManager.default.attributesOfFileSystem(forPath: folder.path)
    return (attributes?[.systemFreeSize] as? NSNumber)?.intValue
  }
}
