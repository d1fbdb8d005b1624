import Foundation

/// A way to execute model files, such as ExecuTorch or Core ML.
public protocol Runtime: Sendable {
  /// Its name in the protocol: `executorch` or `coreml`.
  var name: String { get }

  /// Version, backends and load options.
  func describe() -> RuntimeInfo

  /// Loads `model` afresh, sharing nothing with earlier loads of it. `options` are as the client sent them, not
  /// yet checked. Runs on `session`, which is the thread that times, so that what it makes needs not be Sendable.
  ///
  /// Throws OpError `bad_option`, `options_conflict`, `out_of_memory` or `bad_model`.
  func load(
    _ model: StoredModel, options: LoadOptions, session: isolated any Actor
  ) async throws -> LoadedModel
}

/// A loaded model, used by one thread. `setInputs` is called before every `execute`; both are called in a timing
/// loop, and only `execute` is timed: it must do nothing but run the model.
public protocol Model: AnyObject {
  var inputs: [TensorSpec] { get }
  var outputs: [TensorSpec] { get }

  /// Converts `tensors`, which match `inputs`, to what the runtime takes, and keeps that for `setInputs`.
  func prepare(_ tensors: [Tensor]) throws

  /// Sets the prepared tensors as the next execution's inputs. A runtime may reuse their memory while it
  /// executes, so that this is due before every execution.
  func setInputs() throws

  /// Runs the model once. An error here is answered as `run_failed`.
  func execute() throws

  /// Copies of the outputs of the last execution.
  func readOutputs() throws -> [Tensor]

  /// Frees the model; nothing else is called after it.
  func close()
}

/// A model's file in the store, its content just checked.
public struct StoredModel: Sendable, Equatable {
  public let sha256: String
  public let url: URL
  public let bytes: Int

  public init(sha256: String, url: URL, bytes: Int) {
    self.sha256 = sha256
    self.url = url
    self.bytes = bytes
  }
}

/// Memory of a model's inputs.
public enum InputBuffers: String, Sendable {
  /// In memory that compute units share.
  case ioSurface = "iosurface"
  /// In the process's own, of which the runtime makes a copy where a unit needs another.
  case copied
}

/// What a load gives. Times are the runtime's own, without what the agent does around it.
public struct LoadedModel {
  public let model: any Model
  public let loadNanoseconds: UInt64
  /// Every option in effect, defaults included.
  public let options: LoadOptions
  /// Parts of the program that each backend took; nil if the runtime does not report it.
  public let delegates: [Delegate]?
  public let readPlacement: PlacementReader
  /// Time to compile the model on this device; nil where nothing was compiled now.
  public let compileNanoseconds: UInt64?
  /// Whether this device had loaded this model with these options before; nil where that makes no difference.
  public let cached: Bool?
  /// Nil where the runtime always takes inputs as they are.
  public let inputBuffers: InputBuffers?

  public init(
    model: any Model, loadNanoseconds: UInt64, options: LoadOptions, delegates: [Delegate]? = nil,
    compileNanoseconds: UInt64? = nil, cached: Bool? = nil, inputBuffers: InputBuffers? = nil,
    readPlacement: @escaping PlacementReader = { nil }
  ) {
    self.model = model
    self.loadNanoseconds = loadNanoseconds
    self.options = options
    self.delegates = delegates
    self.readPlacement = readPlacement
    self.compileNanoseconds = compileNanoseconds
    self.cached = cached
    self.inputBuffers = inputBuffers
  }
}
