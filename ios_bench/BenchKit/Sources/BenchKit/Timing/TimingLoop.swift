import Foundation

/// The timing loop: the one place where latency is measured.
package enum TimingLoop {
  /// With keep-warm, the processor is kept busy for this long before every visit. Clocks of phones rise within a
  /// fraction of a millisecond of load; what runs elsewhere (GPU, neural engine) leaves them time to fall.
  private static let keepWarmNanoseconds: UInt64 = 500_000

  /// Nanoseconds of every visit of `schedule`, in order. Models are first warmed up as it says, by time in `warmUp`,
  /// which receives the times. Before every round, and wherever executions took longer than `pieceNanoseconds`, `goOn` is
  /// told how many there were; it ends the run with OpError `cancelled`. Throws OpError `run_failed` where the runtime
  /// fails.
  ///
  /// Only the model's call is between the two clock readings.
  package static func run(
    _ schedule: Schedule, _ models: [any Model], keepWarm: Bool, pieceNanoseconds: UInt64 = .max,
    warmUp: AdaptiveWarmUp? = nil, goOn: (Int) -> Bool
  ) throws -> [UInt64] {
    var executions = Executions(pieceNanoseconds: pieceNanoseconds)
    do {
      for model in models { try model.prepare(randomInputs(for: model.inputs)) }
      for model in models {
        for _ in 0..<schedule.warmup {
          _ = try executions.time(model, goOn)
        }
      }
      if let warmUp { try climb(warmUp, models, &executions, keepWarm: keepWarm, goOn: goOn) }
      return try visit(schedule, models, &executions, keepWarm: keepWarm, goOn: goOn)
    } catch let error as OpError {
      throw error
    } catch {
      throw OpError(.runFailed, "the runtime failed: \(error.localizedDescription)")
    }
  }

  private static func climb(
    _ warmUp: AdaptiveWarmUp, _ models: [any Model], _ executions: inout Executions, keepWarm: Bool,
    goOn: (Int) -> Bool
  ) throws {
    var round = [UInt64](repeating: 0, count: models.count)
    repeat {
      try executions.require(goOn)
      for (index, model) in models.enumerated() {
        if keepWarm { spin() }
        round[index] = try executions.time(model, goOn)
      }
    } while warmUp.goesOn(round)
  }

  private static func visit(
    _ schedule: Schedule, _ models: [any Model], _ executions: inout Executions, keepWarm: Bool,
    goOn: (Int) -> Bool
  ) throws -> [UInt64] {
    var samples = [UInt64](repeating: 0, count: schedule.order.count)
    let visits = schedule.visits
    var pace = Pace(periodNanoseconds: UInt64(schedule.paceMicroseconds) * 1_000)
    for position in schedule.order.indices {
      if position % visits == 0 { try executions.require(goOn) }
      executions.idled(pace.wait())
      if keepWarm { spin() }
      samples[position] = try executions.time(models[schedule.order[position]], goOn)
    }
    return samples
  }

  private static func spin() {
    let end = monotonicNanoseconds() + keepWarmNanoseconds
    while monotonicNanoseconds() < end {}
  }
}

/// Counts executions, and asks whether to go on where those since it last asked took longer than a piece.
private struct Executions {
  let pieceNanoseconds: UInt64
  private var count = 0
  private var sinceAsked: UInt64 = 0

  init(pieceNanoseconds: UInt64) {
    self.pieceNanoseconds = pieceNanoseconds
  }

  mutating func require(_ goOn: (Int) -> Bool) throws {
    sinceAsked = 0
    guard goOn(count) else { throw OpError(.cancelled, "the client went away during the run") }
  }

  mutating func idled(_ nanoseconds: UInt64) { sinceAsked += nanoseconds }

  mutating func time(_ model: any Model, _ goOn: (Int) -> Bool) throws -> UInt64 {
    if sinceAsked >= pieceNanoseconds { try require(goOn) }
    var visited = Result<UInt64, any Error>.success(0)
    withAutoreleasePool { visited = Result { try Self.visit(model) } }
    let nanoseconds = try visited.get()
    count += 1
    sinceAsked += nanoseconds
    return nanoseconds
  }

  private static func visit(_ model: any Model) throws -> UInt64 {
    try model.setInputs()
    let start = monotonicNanoseconds()
    try model.execute()
    return monotonicNanoseconds() - start
  }
}
