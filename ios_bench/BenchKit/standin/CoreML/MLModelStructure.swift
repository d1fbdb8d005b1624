/// What a model is made of (iOS 17.4).
public enum MLModelStructure: Sendable {
  public struct Program: Sendable {
    public struct ValueType: Sendable {}

    public struct NamedValueType: Sendable {
      public let name: String
      public let type: ValueType
    }

    public struct Function: Sendable {
      public let inputs: [NamedValueType]
      public let block: Block
    }

    public struct Block: Sendable {
      public let inputs: [NamedValueType]
      public let outputNames: [String]
      public let operations: [Operation]
    }

    public struct Operation: Sendable {
      public let operatorName: String
      public let outputs: [NamedValueType]
      public let blocks: [Block]
    }

    public let functions: [String: Function]
  }

  public struct NeuralNetwork: Sendable {
    public struct Layer: Sendable {
      public let name: String
      public let type: String
    }

    public let layers: [Layer]
  }

  public struct Pipeline: Sendable {
    public let subModelNames: [String]
    public let subModels: [MLModelStructure]
  }

  case neuralNetwork(NeuralNetwork)
  case program(Program)
  case pipeline(Pipeline)
  case unsupported
}
