#if canImport(CETShim)
  import BenchKit
  import CETShim

  /// Platform-specific part of ExecuTorch: that of the Python wheel.
  enum Platform {
    static let version = String(cString: et_runtime_version())

    static let backends = (0..<et_num_backends()).compactMap {
      et_backend_name($0).map { String(cString: $0) }
    }
    .sorted()

    /// Threads of the CPU backend may be set and pinned to cores, all that is loaded alike.
    static let canSetThreads = true

    /// Throws OpError `options_conflict` where models are loaded with another number.
    static func setThreads(_ threads: Int) throws {
      guard et_set_threads(UInt32(threads)) == 0 else {
        throw OpError(
          .optionsConflict,
          "threads=\(threads) asked, but models are loaded with threads=\(et_get_threads()); unload them first"
        )
      }
    }

    /// Lets all threads of this process run on `cores` alone. Throws OpError `options_conflict` where models are loaded
    /// with others, `bad_option` where the system does not allow them.
    static func pinThreads(to cores: [Int]) throws {
      let error = et_pin_threads(cores.map(UInt32.init), cores.count)
      guard error != 0 else { return }
      throw OpError(
        error == Int32(ET_INVALID_STATE) ? .optionsConflict : .badOption, String(cString: et_last_error()))
    }
  }
#else
  /// Platform-specific part of ExecuTorch: its Swift package for Apple platforms.
  enum Platform {
    /// Version of the package in Package.swift; the runtime does not report it.
    static let version = "1.5.0"

    /// Those linked by Package.swift; the runtime does not report them.
    static let backends = ["CoreMLBackend", "XnnpackBackend"]

    /// The package has no way to set them, the system none to pin them; the runtime takes as many as there are fast cores.
    static let canSetThreads = false

    static func setThreads(_ threads: Int) throws {}

    /// Apple's systems have no call for it.
    static func pinThreads(to cores: [Int]) throws {}
  }
#endif
