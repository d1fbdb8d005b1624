import BenchKit
import ExecuTorch
import Foundation

/// Loads .pte files with a method `forward` of tensors of fixed shape.
public struct ExecuTorchRuntime: Runtime {
  public let name = "executorch"

  /// The file is mapped and a backend packs the weights into memory of its own, so they may be resident twice.
  private static let copiesOfWeights = 2

  /// Left to the rest of the system, so that a load never drives the device into memory pressure.
  private static let spareMemoryBytes = 256 << 20

  /// ExecuTorch's MemoryAllocationFailed, OutOfResources and DelegateMemoryAllocationFailed.
  private static let memoryErrors = [0x21, 0x25, 0x31]

  private let cores: [Int]
  private let defaultThreads: Int
  private let freeMemoryBytes: @Sendable () -> Int?

  /// Nanoseconds; tests have a clock of their own.
  package var now: @Sendable () -> UInt64 = { monotonicNanoseconds() }

  /// `cores` are those that the agent may use, `defaultThreads` of them by default; `freeMemoryBytes` tells how much a
  /// load may take.
  public init(cores: [Int], defaultThreads: Int, freeMemoryBytes: @escaping @Sendable () -> Int?) {
    self.cores = cores
    self.defaultThreads = defaultThreads
    self.freeMemoryBytes = freeMemoryBytes
  }

  public func describe() -> RuntimeInfo {
    let threads = OptionInfo.int(default: defaultThreads, range: 1...cores.count)
    return RuntimeInfo(
      version: Platform.version, backends: Platform.backends,
      options: Platform.canSetThreads ? ["threads": threads, "cores": .text(default: "")] : [:])
  }

  public func load(
    _ model: StoredModel, options: LoadOptions, session: isolated any Actor
  ) async throws -> LoadedModel {
    let options = try checked(options)
    let delegates = try delegates(of: model)
    try prepareThreads(options)
    do {
      let verified = Module(filePath: model.url.path, loadMode: .mmap)
      try verified.load(with: .internalConsistency)
      let metadata = try verified.methodMetadata(ExecuTorchModel.method)
      try requireMemory(model.bytes, metadata.memoryPlannedBufferSizes.reduce(0, +))
      // What is timed is what ExecuTorch's Android API does, which verifies no more.
      let module = Module(filePath: model.url.path, loadMode: .mmap)
      let start = now()
      try module.load(with: .minimal)
      try module.load(ExecuTorchModel.method)
      let loadNanoseconds = now() - start
      return LoadedModel(
        model: try ExecuTorchModel(module, metadata), loadNanoseconds: loadNanoseconds, options: options,
        delegates: delegates)
    } catch let error as OpError {
      throw error
    } catch {
      let code: BenchKit.ErrorCode =
        Self.memoryErrors.contains((error as NSError).code) ? .outOfMemory : .badModel
      throw OpError(
        code,
        "ExecuTorch \(Platform.version) can't load the model (\(error.localizedDescription)); export it again"
      )
    }
  }

  /// All options in effect. Throws OpError `bad_option`.
  private func checked(_ options: LoadOptions) throws -> LoadOptions {
    let known = describe().options
    if let unknown = options.keys.filter({ known[$0] == nil }).min() {
      let names = known.isEmpty ? "none" : known.keys.sorted().joined(separator: ", ")
      throw OpError(.badOption, "executorch has no option \(unknown.debugDescription); it has: \(names)")
    }
    guard Platform.canSetThreads else { return [:] }
    let list = options["cores"] ?? .string("")
    let most = try checkedCores(list).count
    let threads = options["threads"] ?? .int(min(most, defaultThreads))
    guard case .int(let count) = threads, (1...most).contains(count) else {
      throw OpError(.badOption, "threads must be 1 to \(most) here")
    }
    return ["threads": threads, "cores": list]
  }

  /// The cores to use: those of a list, all of the device where it is empty.
  private func checkedCores(_ list: OptionValue) throws -> [Int] {
    if list == .string("") { return cores }
    guard case .string(let text) = list, let wanted = parseCores(text), Set(wanted).isSubset(of: cores) else {
      throw OpError(
        .badOption,
        "cores must be a list such as 4-8 of the cores \(cores[0]) to \(cores[cores.count - 1]) here")
    }
    return wanted
  }

  /// Pins first: a new pool's threads run where the thread that starts them may.
  private func prepareThreads(_ options: LoadOptions) throws {
    guard case .int(let threads)? = options["threads"], let list = options["cores"] else { return }
    try Platform.pinThreads(to: checkedCores(list))
    try Platform.setThreads(threads)
  }

  private func delegates(of model: StoredModel) throws -> [Delegate] {
    do {
      return try ProgramFile(Data(contentsOf: model.url, options: .alwaysMapped)).delegates(
        of: ExecuTorchModel.method)
    } catch let error as ProgramFile.Damaged {
      throw OpError(.badModel, "the model is damaged or not a .pte: \(error.reason); export it again")
    }
  }

  private func requireMemory(_ fileBytes: Int, _ plannedBytes: Int) throws {
    let needed = (Self.copiesOfWeights * fileBytes).addingReportingOverflow(plannedBytes)
    guard let free = freeMemoryBytes() else { return }
    guard !needed.overflow, needed.partialValue <= free - Self.spareMemoryBytes else {
      throw OpError(
        .outOfMemory,
        "the model needs about \(needed.partialValue >> 20) MiB and \(free >> 20) MiB are free "
          + "(\(Self.spareMemoryBytes >> 20) MiB are kept spare); unload models or take a smaller one")
    }
  }
}
