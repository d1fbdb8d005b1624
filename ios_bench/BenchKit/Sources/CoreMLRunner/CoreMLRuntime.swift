import BenchKit
import CoreML
import Foundation

/// Core ML behind the agent's `Runtime`: takes a zip of one `.mlpackage`, compiles it on the device, loads it on
/// the compute units asked for.
public final class CoreMLRuntime: Runtime {
  /// Compiled models are about as large as their packages; this holds a few hundred of those that are measured.
  private static let cacheBytes = 4 << 30

  /// Weights may be resident twice: as mapped from the file, and as laid out for a compute unit.
  private static let copiesOfWeights = 2

  /// Left to the app, which iOS ends without warning when it passes its share of memory.
  private static let spareMemoryBytes = 128 << 20

  /// The package, what is compiled of it and what Core ML makes of that for a compute unit.
  private static let copiesOnDisk = 3

  public let name = "coreml"

  private let system: String
  private let compiledModels: CompiledModels
  private let placements = PlacementCache()
  private let freeMemoryBytes: @Sendable () -> Int?
  private let freeDiskBytes: @Sendable () -> Int?

  /// - Parameters:
  ///   - cache: folder for compiled models; all of it is this runtime's.
  ///   - system: OS version and build, on which depends what Core ML compiles: it has no version of its own.
  ///   - freeMemoryBytes: memory that the app may still take; nil where it is unknown.
  ///   - freeDiskBytes: space left on the volume of `cache`; nil where it is unknown.
  public init(
    cache: URL, system: String, freeMemoryBytes: @escaping @Sendable () -> Int?,
    freeDiskBytes: @escaping @Sendable () -> Int?
  ) throws {
    self.system = system
    self.freeMemoryBytes = freeMemoryBytes
    self.freeDiskBytes = freeDiskBytes
    compiledModels = try CompiledModels(root: cache, system: system, limitBytes: Self.cacheBytes)
  }

  public func describe() -> RuntimeInfo {
    let found = Set(MLModel.availableComputeDevices.compactMap(Placement.Unit.init))
    return RuntimeInfo(
      version: system, backends: Placement.Unit.allCases.filter(found.contains).map(\.rawValue),
      options: [
        ComputeUnits.option: .string(
          default: ComputeUnits.all.rawValue, choices: ComputeUnits.allCases.map(\.rawValue))
      ])
  }

  public func load(
    _ model: StoredModel, options: LoadOptions, session: isolated any Actor
  ) async throws -> LoadedModel {
    let units = try ComputeUnits(options)
    try requireMemory(for: model)
    guard let kept = compiledModels.find(model.sha256) else {
      return try await compileAndOpen(model, on: units, session: session)
    }
    do {
      return try await open(kept, of: model, on: units, compileNanoseconds: nil, session: session)
    } catch {
      // The system may have emptied a part of the caches. Where that is not so, the same error comes again.
      guard compiledModels.dropUnlessUsed(model.sha256) else { throw error }
      return try await compileAndOpen(model, on: units, session: session)
    }
  }

  private func compileAndOpen(
    _ model: StoredModel, on units: ComputeUnits, session: isolated any Actor
  ) async throws -> LoadedModel {
    let (compiled, nanoseconds) = try await compile(model, session: session)
    return try await open(compiled, of: model, on: units, compileNanoseconds: nanoseconds, session: session)
  }

  /// Path of the compiled model, and how long Core ML took to compile it.
  private func compile(_ model: StoredModel, session: isolated any Actor) async throws -> (URL, UInt64) {
    try requireDisk(for: model)
    let scratch = try compiledModels.makeScratch()
    defer { try? FileManager.default.removeItem(at: scratch) }
    do {
      let package = try ModelPackage(zipAt: model.url).unpack(into: scratch)
      let start = monotonicNanoseconds()
      let compiled = try await MLModel.compileModel(at: package)
      let nanoseconds = monotonicNanoseconds() - start
      defer { try? FileManager.default.removeItem(at: compiled) }
      return (try compiledModels.adopt(compiled, as: model.sha256), nanoseconds)
    } catch let error as OpError {
      throw error
    } catch {
      if error.isOutOfSpace { throw storageFull }
      throw OpError(
        .badModel,
        "Core ML of \(system) can't compile the model (\(error.oneLine)); export it for this OS version")
    }
  }

  private func open(
    _ compiled: URL, of model: StoredModel, on units: ComputeUnits, compileNanoseconds: UInt64?,
    session: isolated any Actor
  ) async throws -> LoadedModel {
    let sha256 = model.sha256
    let wasLoaded = compiledModels.wasLoaded(sha256, with: units)
    compiledModels.retain(sha256)
    let opened: CoreMLModel
    let loadNanoseconds: UInt64
    do {
      let configuration = units.makeConfiguration()
      let start = monotonicNanoseconds()
      let loaded = try MLModel(contentsOf: compiled, configuration: configuration)
      loadNanoseconds = monotonicNanoseconds() - start
      opened = try CoreMLModel(loaded) { [compiledModels] in compiledModels.release(sha256) }
      try compiledModels.markLoaded(sha256, with: units)
    } catch {
      compiledModels.release(sha256)
      throw refusal(error, on: units)
    }
    return LoadedModel(
      model: opened, loadNanoseconds: loadNanoseconds,
      options: [ComputeUnits.option: .string(units.rawValue)], compileNanoseconds: compileNanoseconds,
      cached: wasLoaded, inputBuffers: opened.inputBuffers
    ) { [placements] in
      await placements.placement(of: sha256, on: units) {
        await ComputePlan.placement(of: compiled, on: units)
      }
    }
  }

  private func refusal(_ error: any Error, on units: ComputeUnits) -> OpError {
    if let known = error as? OpError { return known }
    if error.isOutOfSpace { return storageFull }
    return OpError(
      .badModel,
      "Core ML of \(system) can't load or run the model on \(units.rawValue) (\(error.oneLine)); "
        + "try other compute units")
  }

  private func requireMemory(for model: StoredModel) throws {
    let needed = Self.copiesOfWeights * model.bytes + Self.spareMemoryBytes
    if let free = freeMemoryBytes(), free < needed {
      throw OpError(
        .outOfMemory,
        "the model needs about \(needed >> 20) MiB, \(free >> 20) MiB are free; unload others or close apps")
    }
  }

  private func requireDisk(for model: StoredModel) throws {
    if let free = freeDiskBytes(), free < Self.copiesOnDisk * model.bytes { throw storageFull }
  }

  private var storageFull: OpError {
    OpError(.storageFull, "no space left to compile the model; free some storage on the device")
  }
}
