import BenchKit
import Testing

@Suite("Timing loop")
struct TimingLoopTests {
  private func schedule(_ order: [[Int]], handles: Int, warmup: Int = 0) -> Schedule {
    Schedule(
      handles: Array(0..<handles), order: order.flatMap { $0 }, rounds: order.count, warmup: warmup)
  }

  private func code(_ body: () throws -> Void) -> OpError? {
    do { try body() } catch let error as OpError { return error } catch { Issue.record(error) }
    return nil
  }

  @Test(
    "Inputs are prepared once, set before every execution, and visits follow the order",
    arguments: [false, true])
  func order(keepWarm: Bool) throws {
    let log = CallLog()
    let models = [Doubler("a", log: log), Doubler("b", log: log)]
    let samples = try TimingLoop.run(
      schedule([[1, 0], [1, 1]], handles: 2, warmup: 2), models, keepWarm: keepWarm, goOn: { _ in true })
    #expect(samples.count == 4)
    let warmup = ["a", "a", "b", "b"].flatMap { ["set \($0)", "run \($0)"] }
    let visits = ["b", "a", "b", "b"].flatMap { ["set \($0)", "run \($0)"] }
    #expect(log.calls == ["prepare a", "prepare b"] + warmup + visits)
  }

  @Test("The adaptive warm-up follows the fixed one, all models in turn")
  func warmUp() throws {
    let log = CallLog()
    let warmUp = AdaptiveWarmUp(models: 2, boundNanoseconds: 1)
    _ = try TimingLoop.run(
      schedule([[1, 1]], handles: 2, warmup: 1), [Doubler("a", log: log), Doubler("b", log: log)],
      keepWarm: false, warmUp: warmUp, goOn: { _ in true })
    #expect(log.calls.filter { $0.hasPrefix("run") }.map { String($0.last!) }.joined() == "ab" + "ab" + "bb")
    #expect(warmUp.rounds == 1)
    #expect(!warmUp.isSteady)
  }

  @Test("A sample is the time of its own visit")
  func ownSample() throws {
    let slow = SlowModel(nanoseconds: 3_000_000)
    let samples = try TimingLoop.run(
      schedule([[0, 1, 0]], handles: 2), [Doubler("fast"), slow], keepWarm: false, goOn: { _ in true })
    #expect(samples[1] >= 3_000_000)
    #expect(samples[0] > 0 && samples[2] > 0)
  }

  @Test("A client that goes away ends the run after the round in progress")
  func cancelled() {
    let log = CallLog()
    var rounds = 0
    let error = code {
      _ = try TimingLoop.run(
        schedule([[0, 0], [0, 0], [0, 0]], handles: 1), [Doubler("a", log: log)], keepWarm: false,
        goOn: { _ in
          rounds += 1
          return rounds < 3
        })
    }
    #expect(error?.code == .cancelled)
    #expect(log.calls.filter { $0 == "run a" }.count == 4)
  }

  @Test("Executions are told before rounds, and wherever they take long")
  func told() throws {
    let models = [Doubler("a"), Doubler("b")]
    let order = schedule([[1, 0], [1, 1]], handles: 2, warmup: 1)
    for (piece, expected) in [(UInt64.max, [2, 4]), (0, [0, 1, 2, 2, 3, 4, 4, 5])] {
      var told: [Int] = []
      _ = try TimingLoop.run(
        order, models, keepWarm: false, pieceNanoseconds: piece,
        goOn: {
          told.append($0)
          return true
        })
      #expect(told == expected)
    }
  }

  @Test("A runtime that fails is named, in warm-up and in a visit", arguments: [1, 3])
  func failing(execution: Int) {
    let model = Doubler("a")
    model.failsAtExecution = execution
    let error = code {
      _ = try TimingLoop.run(
        schedule([[0, 0]], handles: 1, warmup: 2), [model], keepWarm: false, goOn: { _ in true })
    }
    #expect(error?.code == .runFailed)
    #expect(error?.message.contains("it broke") == true)
  }

  @Test("The clock never goes back")
  func clock() {
    var last = monotonicNanoseconds()
    for _ in 0..<10_000 {
      let now = monotonicNanoseconds()
      #expect(now >= last)
      last = now
    }
  }
}

/// Takes at least a given time.
private final class SlowModel: Model {
  let inputs: [TensorSpec] = []
  let outputs: [TensorSpec] = []
  private let nanoseconds: UInt64

  init(nanoseconds: UInt64) {
    self.nanoseconds = nanoseconds
  }

  func prepare(_ tensors: [Tensor]) throws {}
  func setInputs() throws {}
  func execute() throws {
    let end = monotonicNanoseconds() + nanoseconds
    while monotonicNanoseconds() < end {}
  }
  func readOutputs() throws -> [Tensor] { [] }
  func close() {}
}
