// The part of Apple's Core ML that CoreMLRunner uses, for Linux, where no Core ML is. Signatures follow the
// Swift interface of the iOS 18.2 SDK and https://developer.apple.com/documentation/coreml. Nothing is marked
// Sendable that Apple does not mark, so that the runner's concurrency is checked as strictly as on a phone.
import Foundation

/// A compiled, loaded model.
open class MLModel: NSObject {
  public let modelDescription: MLModelDescription
  public let configuration: MLModelConfiguration
  private let standIn: StandInModel
  private var predictions = 0

  public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
    standIn = try StandInModel(compiledAt: url)
    if standIn.failsOnUnits.contains(configuration.computeUnits.rawValue) {
      throw StandInModel.error("Failed to build the model execution plan using a model architecture file")
    }
    self.configuration = configuration
    modelDescription = try standIn.makeDescription()
  }

  open class func load(
    contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()
  ) async throws -> MLModel {
    try MLModel(contentsOf: url, configuration: configuration)
  }

  /// Devices that predictions can use (iOS 17).
  public static var availableComputeDevices: [MLComputeDevice] {
    [.cpu(.init()), .gpu(.init()), .neuralEngine(.init())]
  }

  /// The compiled model in a temporary folder; the caller moves or deletes it.
  open class func compileModel(at url: URL) async throws -> URL {
    try StandInModel.compile(packageAt: url)
  }

  open func prediction(
    from input: any MLFeatureProvider, options: MLPredictionOptions
  ) throws -> any MLFeatureProvider {
    defer { predictions += 1 }
    return try standIn.predict(predictions, from: input, options: options)
  }
}

public enum MLComputeUnits: Int, Sendable {
  case cpuOnly = 0
  case cpuAndGPU = 1
  case all = 2
  case cpuAndNeuralEngine = 3
}

open class MLModelConfiguration: NSObject {
  open var computeUnits: MLComputeUnits = .all
}

open class MLPredictionOptions: NSObject {
  /// Buffers proposed for outputs; a model need not use them.
  open var outputBackings: [String: Any] = [:]
}
