import Foundation

/// The timing loop: the one place where latency is measured.
package enum TimingLoop {
  /// With keep-warm, the processor is kept busy for this long before every visit. Clocks of phones rise within a
  /// fraction of a millisecond of load; what runs elsewhere (GPU, neural engine) leaves them time to fall.
  private static let keepWarmNanoseconds: UInt64 = 500_000

  /// Nanoseconds of every visit of `schedule`, in order. `goOn` is asked between rounds and ends the run with
  /// OpError `cancelled`. Throws OpError `run_failed` where the runtime fails.
  ///
  /// Between the two readings of the clock lies nothing but the model's call.
  package static func run(
    _ schedule: Schedule, _ models: [any Model], keepWarm: Bool, goOn: () -> Bool
  ) throws -> [UInt64] {
    do {
      for model in models { try model.prepare(randomInputs(for: model.inputs)) }
      for model in models {
        for _ in 0..<schedule.warmup {
          try withAutoreleasePool {
            try model.setInputs()
            try model.execute()
          }
        }
      }
      return try visit(schedule, models, keepWarm: keepWarm, goOn: goOn)
    } catch let error as OpError {
      throw error
    } catch {
      throw OpError(.runFailed, "the runtime failed: \(error.localizedDescription)")
    }
  }

  private static func visit(
    _ schedule: Schedule, _ models: [any Model], keepWarm: Bool, goOn: () -> Bool
  ) throws -> [UInt64] {
    var samples = [UInt64](repeating: 0, count: schedule.order.count)
    let visits = schedule.visits
    for position in schedule.order.indices {
      if position % visits == 0, !goOn() {
        throw OpError(.cancelled, "the client went away during the run")
      }
      if keepWarm { spin() }
      samples[position] = try withAutoreleasePool { try visit(models[schedule.order[position]]) }
    }
    return samples
  }

  private static func visit(_ model: any Model) throws -> UInt64 {
    try model.setInputs()
    let start = monotonicNanoseconds()
    try model.execute()
    return monotonicNanoseconds() - start
  }

  private static func spin() {
    let end = monotonicNanoseconds() + keepWarmNanoseconds
    while monotonicNanoseconds() < end {}
  }
}
