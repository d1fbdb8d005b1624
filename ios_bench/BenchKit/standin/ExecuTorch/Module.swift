import CETShim

/// How a program's file is read; here it is always mapped.
public enum ModuleLoadMode: Sendable {
  case mmap
}

/// How much of a program is verified; here it is always all that can be.
public enum ModuleVerification: Sendable {
  case minimal
  case internalConsistency
}

/// Stands in, on Linux, for the class of that name in ExecuTorch's Swift package for Apple platforms: the part of
/// it that ExecuTorchRunner uses, with the same names and the same rules, over the ExecuTorch of the Python wheel.
/// It only knows the method `forward`.
public final class Module {
  private let filePath: String
  private var model: OpaquePointer?
  private var isForwardLoaded = false
  /// Data of the inputs that are set, which the runtime reads in place.
  private var inputs: [AnyTensor] = []
  private var outputs: [Value] = []

  public init(filePath: String, loadMode: ModuleLoadMode) {
    self.filePath = filePath
  }

  deinit { et_close(model) }

  /// Loads and verifies the program.
  public func load(with verification: ModuleVerification) throws {
    if model == nil { try check(et_open(filePath, &model)) }
  }

  /// Loads a method, and the program before it if that is not loaded.
  public func load(_ method: String) throws {
    try load(with: .internalConsistency)
    guard method == "forward" else { throw failure(.invalidArgument, "no method \(method)") }
    if isForwardLoaded { return }
    try check(et_load(model))
    outputs = try methodMetadata(method).outputTensorMetadata.sorted { $0.key < $1.key }.map {
      index, output in
      Value(reading: { [unowned self] in self.output(index, output) })
    }
    isForwardLoaded = true
  }

  /// Loads the program if that is not loaded.
  public func methodMetadata(_ method: String) throws -> MethodMetadata {
    try load(with: .internalConsistency)
    return try MethodMetadata(model!)
  }

  /// Sets all inputs of `forward`, and keeps them.
  public func setInputs(_ values: [any ValueConvertible]) throws {
    try load("forward")
    let tensors = values.compactMap { $0.asValue().anyTensor }
    guard tensors.count == et_num_inputs(model) else {
      throw failure(.invalidArgument, "\(tensors.count) inputs")
    }
    for (index, tensor) in tensors.enumerated() {
      try check(et_bind_input(model, index, tensor.data.baseAddress, tensor.data.count))
    }
    inputs = tensors
    try check(et_set_inputs(model))
  }

  /// Runs a method on the inputs that are set. The values share the method's output memory.
  public func execute(_ method: String) throws -> [Value] {
    try load(method)
    try check(et_execute(model))
    return outputs
  }

  private func output(_ index: Int, _ metadata: TensorMetadata) -> AnyTensor? {
    let tensor = AnyTensor(shape: metadata.shape, dataType: metadata.dataType)
    let code = et_read_output(model, index, tensor.data.baseAddress, tensor.data.count)
    return code == Int32(ET_OK) ? tensor : nil
  }
}
