import BenchKit
import CoreMLRunner
import Foundation
import Testing

@Suite("Core ML runtime")
struct CoreMLRuntimeTests {
  private let place: Workplace

  init() throws { place = try Workplace() }

  @Test("A loaded model tells its inputs and outputs and computes on what it is given")
  func predicts() async throws {
    let model = try place.twoByTwo()
    try await Client(place.runtime()).load(model) { loaded in
      let input = TensorSpec(dtype: .float32, shape: [2, 2])
      let output = TensorSpec(dtype: .float32, shape: [3])
      #expect(loaded.model.inputs == [input])
      #expect(loaded.model.outputs == [output])
      #expect(loaded.options == ["compute_units": .string("all")])
      for (values, result) in [([1, 2, 3, 4], [10, 11, 12]), ([0, 0, 0, 5], [5, 6, 7])]
        as [([Float], [Float])]
      {
        try loaded.model.prepare([Tensor(spec: input, bytes: floats(values))])
        try loaded.model.setInputs()
        try loaded.model.execute()
        #expect(try loaded.model.readOutputs() == [Tensor(spec: output, bytes: floats(result))])
      }
    }
  }

  @Test(
    "Outputs are read as they lie in memory: in the buffers proposed, or padded in Core ML's own",
    .needsStandIn,
    arguments: [true, false])
  func layouts(usesBackings: Bool) async throws {
    let model = try place.model(
      """
      {"inputs": [{"name": "input_0", "shape": [], "dtype": "float32"}],
       "outputs": [{"name": "output_0", "shape": [2, 1, 3], "dtype": "float32", "rowPadding": 5},
                   {"name": "output_1", "shape": [2], "dtype": "int32"},
                   {"name": "output_2", "shape": [1, 2], "dtype": "double"},
                   {"name": "output_3", "shape": [2], "dtype": "float16"}],
       "usesBackings": \(usesBackings), "tellsOutputShapes": false}
      """)
    try await Client(place.runtime()).load(model) { loaded in
      try loaded.model.prepare([Tensor(spec: loaded.model.inputs[0], bytes: floats([1]))])
      try loaded.model.setInputs()
      try loaded.model.execute()
      let outputs = try loaded.model.readOutputs()
      #expect(
        outputs.map(\.spec.description) == ["float32[2, 1, 3]", "int32[2]", "float64[1, 2]", "float16[2]"])
      #expect(outputs[0].bytes == floats([1, 2, 3, 4, 5, 6]))
      #expect(outputs[1].bytes == [1, 0, 0, 0, 2, 0, 0, 0])
      #expect(
        outputs[2].bytes
          == [1.0, 2.0].flatMap { withUnsafeBytes(of: $0.bitPattern.littleEndian, Array.init) })
      #expect(outputs[3].bytes == [0x00, 0x3c, 0x00, 0x40])
    }
  }

  @Test(
    "Float16 inputs lie on a surface, row by row; others are copied, and the load says which", .needsStandIn,
    arguments: [("float16", InputBuffers.ioSurface), ("float32", .copied)])
  func inputBuffers(dtype: String, expected: InputBuffers) async throws {
    let model = try place.model(
      """
      {"inputs": [{"name": "input_0", "shape": [2, 1, 3], "dtype": "\(dtype)"}],
       "outputs": [{"name": "output_0", "shape": [1, 2], "dtype": "float16"}]}
      """)
    try await Client(place.runtime()).load(model) { loaded in
      #expect(loaded.inputBuffers == expected)
      let spec = loaded.model.inputs[0]
      // 1 to 6 in Float16: 15 + the exponent above ten bits of fraction.
      let halves: [UInt8] = [
        0x00, 0x3c, 0x00, 0x40, 0x00, 0x42, 0x00, 0x44, 0x00, 0x45, 0x00, 0x46,
      ]
      let bytes = expected == .ioSurface ? halves : floats([1, 2, 3, 4, 5, 6])
      try loaded.model.prepare([Tensor(spec: spec, bytes: bytes)])
      try loaded.model.setInputs()
      try loaded.model.execute()
      #expect(try loaded.model.readOutputs()[0].bytes == [0x40, 0x4d, 0x80, 0x4d], "21 and 22")
    }
  }

  @Test("Inputs and outputs are in the order of the numbers in their names", .needsStandIn)
  func order() async throws {
    let features = (0..<12).map {
      "{\"name\": \"output_\($0)\", \"shape\": [\($0 + 1)], \"dtype\": \"float32\"}"
    }
    let model = try place.model("{\"outputs\": [\(features.shuffled().joined(separator: ","))]}")
    let shapes = try await Client(place.runtime()).load(model) { $0.model.outputs.map(\.shape) }
    #expect(shapes == (1...12).map { [$0] })
  }

  @Test("A model is compiled once; a load is the first for each choice of units")
  func caching() async throws {
    let (model, other) = (try place.twoByTwo(), try place.twoByTwo())
    func load(_ model: StoredModel, _ units: String, _ runtime: CoreMLRuntime) async throws -> [Bool?] {
      try await Client(runtime).load(model, units: units) { [$0.compileNanoseconds != nil, $0.cached] }
    }
    let runtime = try place.runtime()
    #expect(try await load(model, "all", runtime) == [true, false])
    #expect(try await load(model, "all", runtime) == [false, true])
    #expect(try await load(model, "cpuonly", runtime) == [false, false])
    #expect(try await load(other, "all", runtime) == [true, false])
    #expect(try await load(model, "cpuonly", place.runtime()) == [false, true], "as after a restart")
    let updated = try place.runtime(system: "iOS 18.0 (22A3354)")
    #expect(try await load(model, "all", updated) == [true, false], "another OS compiles for itself")
    #expect(try FileManager.default.contentsOfDirectory(atPath: place.cache.path) == ["iOS-18-0--22A3354-"])
  }

  @Test("A compiled model that the system emptied is compiled again", .needsStandIn)
  func purged() async throws {
    let model = try place.twoByTwo()
    let runtime = try place.runtime()
    _ = try await Client(runtime).load(model) { $0.loadNanoseconds }
    let compiled = try #require(
      FileManager.default.enumerator(atPath: place.cache.path)?.compactMap { $0 as? String }
        .first { $0.hasSuffix("model.json") })
    try FileManager.default.removeItem(at: place.cache.appendingPathComponent(compiled))
    #expect(try await Client(runtime).load(model) { $0.compileNanoseconds != nil && $0.cached == false })
  }

  @Test("What was left behind by an app that died is cleaned up, and a load leaves nothing beside the model")
  func scratch() async throws {
    let model = try place.twoByTwo()
    _ = try await Client(place.runtime()).load(model) { $0.cached }
    let system = place.cache.appendingPathComponent("iOS-17-5--21F79-")
    #expect(try FileManager.default.contentsOfDirectory(atPath: system.path) == [model.sha256])
    let left = system.appendingPathComponent("scratch-1/net.mlpackage")
    try FileManager.default.createDirectory(at: left, withIntermediateDirectories: true)
    _ = try place.runtime()
    #expect(try FileManager.default.contentsOfDirectory(atPath: system.path) == [model.sha256])
  }

  @Test("Units on which a model can't be loaded are named; it loads on others", .needsStandIn)
  func failingUnits() async throws {
    let model = try place.model(
      """
      {"failsOn": ["cpuAndNeuralEngine", "all"],
       "outputs": [{"name": "output_0", "shape": [1], "dtype": "float32"}]}
      """)
    let client = Client(try place.runtime())
    for units in ["cpuandneuralengine", "all"] {
      let error = try #require(await client.refusal(model, options: ["compute_units": .string(units)]))
      #expect(error.code == .badModel)
      #expect(error.message.contains("on \(units) (Failed to build the model execution plan"))
    }
    for units in ["cpuonly", "cpuandgpu"] {
      #expect(await client.refusal(model, options: ["compute_units": .string(units)]) == nil)
    }
  }

  @Test(
    "Models that Core ML or the agent can't use are bad models", .needsStandIn,
    arguments: [
      ("{\"compileError\": \"unsupported op foo\"}", "can't compile the model (unsupported op foo)"),
      ("not a model", "can't compile"),
      ("{\"predictionError\": \"espresso -1\"}", "load or run the model on all (espresso -1)"),
      (
        "{\"inputs\": [{\"name\": \"input_0\", \"shape\": [1], \"dtype\": \"image\"}]}",
        "input input_0 is not a tensor"
      ),
      (
        "{\"inputs\": [{\"name\": \"input_0\", \"shape\": [1], \"dtype\": \"int8\"}]}",
        "input_0 is not a tensor"
      ),
      (
        "{\"outputs\": [{\"name\": \"output_0\", \"shape\": [1], \"dtype\": \"int8\"}]}",
        "output_0 has an unknown"
      ),
    ])
  func badModels(description: String, message: String) async throws {
    let error = try #require(await Client(place.runtime()).refusal(place.model(description)))
    #expect(error.code == .badModel)
    #expect(error.message.contains(message), "\(error.message)")
  }

  @Test("A failure while running, such as work refused in the background, is run_failed", .needsStandIn)
  func failsLater() async throws {
    let model = try place.model("{\"predictionError\": \"GPU refused\", \"predictionsBeforeError\": 2}")
    try await Client(place.runtime()).load(model) { loaded in
      let schedule = Schedule(handles: [1], order: [0, 0], rounds: 2, warmup: 0)
      do {
        _ = try TimingLoop.run(schedule, [loaded.model], keepWarm: false) { _ in true }
        Issue.record("the third prediction fails")
      } catch let error as OpError {
        #expect(error.code == .runFailed)
        #expect(error.message.contains("GPU refused"))
      }
    }
  }

  @Test("Options are checked")
  func options() async throws {
    let client = Client(try place.runtime())
    let model = try place.twoByTwo()
    for options in [
      ["threads": .int(1)], ["compute_units": .string("ALL")], ["compute_units": .int(2)],
    ] as [LoadOptions] {
      #expect(await client.refusal(model, options: options)?.code == .badOption)
    }
  }

  @Test("Without memory or storage for a model nothing is tried")
  func noRoom() async throws {
    let model = try place.twoByTwo()
    let tight = Client(try place.runtime(freeMemoryBytes: 128 << 20))
    #expect(await tight.refusal(model)?.code == .outOfMemory)
    let full = Client(try place.runtime(freeDiskBytes: model.bytes))
    #expect(await full.refusal(model)?.code == .storageFull)
    #expect(
      await Client(try place.runtime(freeMemoryBytes: 1 << 30, freeDiskBytes: 1 << 30)).refusal(model) == nil)
  }

  @Test("What it tells of itself")
  func describes() throws {
    let info = try place.runtime().describe()
    #expect(info.version == "iOS 17.5 (21F79)")
    #expect(info.backends == ["cpu", "gpu", "neural_engine"])
    #expect(
      info.options == [
        "compute_units": .string(
          default: "all", choices: ["cpuonly", "cpuandgpu", "cpuandneuralengine", "all"])
      ])
  }
}
