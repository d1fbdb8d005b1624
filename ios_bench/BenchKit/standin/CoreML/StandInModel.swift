import Foundation

/// What stands in for a model on Linux: a JSON document where a package has its `model.mlmodel`.
///
/// Tests write such packages, and so decide what Core ML would do with them. Absent keys take the default.
struct StandInModel: Decodable {
  struct Feature: Decodable {
    var name: String
    var shape: [Int]
    /// `float32`, `float16`, `double`, `int32`, `int8` or `image`.
    var dtype: String
    /// Extra elements between rows, as hardware buffers have them.
    var rowPadding: Int?
  }

  struct Operation: Decodable {
    var name: String
    var type: String
    /// Unit by compute units, or under `*` for all of them; absent if Core ML cannot report it.
    var unit: [String: String]?
    var cost: Double?
    /// Operations of a nested block (a conditional, a loop).
    var body: [Operation]?
  }

  var compileError: String?
  var failsOn: [String]?
  var predictionError: String?
  /// Number of predictions before `predictionError`; absent: none.
  var predictionsBeforeError: Int?
  var inputs: [Feature]?
  var outputs: [Feature]?
  /// Whether outputs land in the buffers that the caller proposed.
  var usesBackings: Bool?
  /// Whether the interface names the outputs' shapes, which Core ML programs need not do.
  var tellsOutputShapes: Bool?
  /// Absent: Core ML has no plan and says so.
  var plan: [Operation]?

  private static let packagePath = "Data/com.apple.CoreML/model.mlmodel"
  private static let compiledPath = "model.json"

  static func error(_ message: String) -> NSError {
    NSError(domain: "com.apple.CoreML", code: 0, userInfo: [NSLocalizedDescriptionKey: message])
  }

  static func compile(packageAt url: URL) throws -> URL {
    let source = url.appendingPathComponent(packagePath)
    guard let data = try? Data(contentsOf: source),
      let model = try? JSONDecoder().decode(Self.self, from: data)
    else { throw error("Unable to load model: the package holds no readable model") }
    if let message = model.compileError { throw error(message) }
    let name = url.deletingPathExtension().lastPathComponent
    let compiled = FileManager.default.temporaryDirectory
      .appendingPathComponent("\(UUID().uuidString)/\(name).mlmodelc")
    try FileManager.default.createDirectory(at: compiled, withIntermediateDirectories: true)
    try data.write(to: compiled.appendingPathComponent(compiledPath))
    return compiled
  }

  init(compiledAt url: URL) throws {
    guard let data = try? Data(contentsOf: url.appendingPathComponent(Self.compiledPath)) else {
      throw Self.error("Unable to load model: no compiled model at \(url.lastPathComponent)")
    }
    self = try JSONDecoder().decode(Self.self, from: data)
  }

  var failsOnUnits: [Int] {
    (failsOn ?? []).compactMap { name in Self.unitNames.first { $0.value == name }?.key }
  }

  func makeDescription() throws -> MLModelDescription {
    MLModelDescription(
      inputs: (inputs ?? []).map { $0.description(withShape: true) },
      outputs: (outputs ?? []).map { $0.description(withShape: tellsOutputShapes ?? true) })
  }

  /// Element i of every output, in row-major order, is the sum of all elements of all inputs, plus i.
  func predict(
    _ predictions: Int, from input: any MLFeatureProvider, options: MLPredictionOptions
  ) throws -> any MLFeatureProvider {
    if let predictionError, predictions >= predictionsBeforeError ?? 0 { throw Self.error(predictionError) }
    var sum = 0.0
    for feature in inputs ?? [] {
      guard let array = input.featureValue(for: feature.name)?.multiArrayValue else {
        throw Self.error("Feature \(feature.name) is required but not specified.")
      }
      guard array.shape.map(\.intValue) == feature.shape, array.dataType == feature.dataType else {
        throw Self.error("MultiArray shape or type does not match that of \(feature.name)")
      }
      sum += array.scalars.reduce(0, +)
    }
    var results: [String: Any] = [:]
    for feature in outputs ?? [] {
      let proposed = usesBackings ?? true ? options.outputBackings[feature.name] as? MLMultiArray : nil
      let array = try proposed ?? feature.makeArray()
      array.fill(from: sum)
      results[feature.name] = array
    }
    return try MLDictionaryFeatureProvider(dictionary: results)
  }

  func makePlan(configuration: MLModelConfiguration) throws -> MLComputePlan {
    guard let plan else { throw Self.error("The compute plan is not available for this model") }
    let units = Self.unitNames[configuration.computeUnits.rawValue] ?? "*"
    var usages: [String: MLComputePlan.DeviceUsage] = [:]
    var costs: [String: MLComputePlan.Cost] = [:]
    func block(_ operations: [Operation]) -> MLModelStructure.Program.Block {
      .init(inputs: [], outputNames: [], operations: operations.map(operation))
    }
    func operation(_ operation: Operation) -> MLModelStructure.Program.Operation {
      if let device = (operation.unit?[units] ?? operation.unit?["*"]).flatMap(MLComputeDevice.init(named:)) {
        usages[operation.name] = .init(supported: [device], preferred: device)
      }
      costs[operation.name] = operation.cost.map(MLComputePlan.Cost.init(weight:))
      return .init(
        operatorName: operation.type, outputs: [.init(name: operation.name, type: .init())],
        blocks: operation.body.map { [block($0)] } ?? [])
    }
    let main = MLModelStructure.Program.Function(inputs: [], block: block(plan))
    return MLComputePlan(
      modelStructure: .program(.init(functions: ["main": main])), usages: usages, costs: costs)
  }

  private static let unitNames = [
    0: "cpuOnly", 1: "cpuAndGPU", 2: "all", 3: "cpuAndNeuralEngine",
  ]
}

extension StandInModel.Feature {
  var dataType: MLMultiArrayDataType {
    switch dtype {
    case "float16": .float16
    case "double": .double
    case "int32": .int32
    case "int8": .int8
    default: .float32
    }
  }

  func description(withShape: Bool) -> MLFeatureDescription {
    guard dtype != "image" else { return .init(name: name, type: .image, multiArrayConstraint: nil) }
    let constraint = MLMultiArrayConstraint(shape: withShape ? shape : [], dataType: dataType)
    return .init(name: name, type: .multiArray, multiArrayConstraint: constraint)
  }

  func makeArray() throws -> MLMultiArray {
    guard let rowPadding, let width = shape.last else {
      return try MLMultiArray(shape: shape.map { NSNumber(value: $0) }, dataType: dataType)
    }
    var strides = [1]
    var step = width + rowPadding
    for size in shape.dropLast().reversed() {
      strides.insert(step, at: 0)
      step *= size
    }
    return MLMultiArray(shape: shape, dataType: dataType, strides: strides)
  }
}

extension MLComputeDevice {
  init?(named name: String) {
    switch name {
    case "cpu": self = .cpu(.init())
    case "gpu": self = .gpu(.init())
    case "neural_engine": self = .neuralEngine(.init())
    default: return nil
    }
  }
}

extension MLMultiArray {
  /// Offsets of all elements in row-major order, in elements.
  private var offsets: [Int] {
    var offsets = [0]
    for (size, stride) in zip(shape, strides) {
      offsets = offsets.flatMap { base in (0..<size.intValue).map { base + $0 * stride.intValue } }
    }
    return offsets
  }

  var scalars: [Double] {
    withUnsafeBytes { bytes in
      offsets.map { offset in
        let at = offset * dataType.byteCount
        return switch dataType {
        case .double: bytes.loadUnaligned(fromByteOffset: at, as: Double.self)
        case .float32: Double(bytes.loadUnaligned(fromByteOffset: at, as: Float.self))
        case .float16: Double(bytes.loadUnaligned(fromByteOffset: at, as: Float16.self))
        case .int32: Double(bytes.loadUnaligned(fromByteOffset: at, as: Int32.self))
        case .int8: Double(bytes.loadUnaligned(fromByteOffset: at, as: Int8.self))
        }
      }
    }
  }

  func fill(from start: Double) {
    withUnsafeMutableBytes { bytes, _ in
      for (index, offset) in offsets.enumerated() {
        let value = start + Double(index)
        let at = offset * dataType.byteCount
        switch dataType {
        case .double: bytes.storeBytes(of: value, toByteOffset: at, as: Double.self)
        case .float32: bytes.storeBytes(of: Float(value), toByteOffset: at, as: Float.self)
        case .float16: bytes.storeBytes(of: Float16(value), toByteOffset: at, as: Float16.self)
        case .int32: bytes.storeBytes(of: Int32(value), toByteOffset: at, as: Int32.self)
        case .int8: bytes.storeBytes(of: Int8(value), toByteOffset: at, as: Int8.self)
        }
      }
    }
  }
}
