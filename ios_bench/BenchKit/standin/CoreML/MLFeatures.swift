import Foundation

public enum MLFeatureType: Int, Sendable {
  case invalid = 0
  case int64 = 1
  case double = 2
  case string = 3
  case image = 4
  case multiArray = 5
  case dictionary = 6
  case sequence = 7
  case state = 8
}

open class MLModelDescription: NSObject {
  public let inputDescriptionsByName: [String: MLFeatureDescription]
  public let outputDescriptionsByName: [String: MLFeatureDescription]

  init(inputs: [MLFeatureDescription], outputs: [MLFeatureDescription]) {
    inputDescriptionsByName = Dictionary(uniqueKeysWithValues: inputs.map { ($0.name, $0) })
    outputDescriptionsByName = Dictionary(uniqueKeysWithValues: outputs.map { ($0.name, $0) })
  }
}

open class MLFeatureDescription: NSObject {
  public let name: String
  public let type: MLFeatureType
  public let multiArrayConstraint: MLMultiArrayConstraint?

  init(name: String, type: MLFeatureType, multiArrayConstraint: MLMultiArrayConstraint?) {
    self.name = name
    self.type = type
    self.multiArrayConstraint = multiArrayConstraint
  }
}

open class MLMultiArrayConstraint: NSObject {
  public let shape: [NSNumber]
  public let dataType: MLMultiArrayDataType

  init(shape: [Int], dataType: MLMultiArrayDataType) {
    self.shape = shape.map { NSNumber(value: $0) }
    self.dataType = dataType
  }
}

open class MLFeatureValue: NSObject {
  public let multiArrayValue: MLMultiArray?

  public init(multiArray value: MLMultiArray) {
    multiArrayValue = value
  }
}

public protocol MLFeatureProvider {
  var featureNames: Set<String> { get }
  func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
  private let values: [String: MLFeatureValue]

  /// Values are feature values, or what one can be made of.
  public init(dictionary: [String: Any]) throws {
    values = try dictionary.mapValues { value in
      switch value {
      case let feature as MLFeatureValue: feature
      case let array as MLMultiArray: MLFeatureValue(multiArray: array)
      default: throw StandInModel.error("no feature value can be made of \(type(of: value))")
      }
    }
  }

  open var featureNames: Set<String> { Set(values.keys) }

  open func featureValue(for featureName: String) -> MLFeatureValue? { values[featureName] }
}
