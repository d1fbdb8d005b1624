/// Says when a run is warm: follows rounds of warm-up, in each of which every model is executed once, until their
/// latencies stop falling or a time has gone by in them. Python's and Kotlin's agents do the same
/// (protocol/golden/ramps.json).
package final class AdaptiveWarmUp {
  /// A window is whole rounds of at least this time: a clock climbs within less, or in several windows.
  private static let windowNanoseconds: UInt64 = 50_000_000
  /// Medians are those of a window's last rounds, which bounds the memory for tiny models.
  private static let windowRounds = 15
  /// A window still falls where the sum of its medians is lower than that of the window before by more than this.
  private static let fallPercent: UInt64 = 1
  /// Windows in a row that do not fall: one alone may be slow by chance.
  private static let steadyWindows = 2

  private let models: Int
  private let boundNanoseconds: UInt64
  private var times: [UInt64]
  private var inWindow: (nanoseconds: UInt64, rounds: Int) = (0, 0)
  private var quietWindows = 0
  private var level: UInt64?

  /// Time in the models so far.
  package private(set) var nanoseconds: UInt64 = 0
  /// Executions of each model so far.
  package private(set) var rounds = 0
  /// Whether latencies have stopped falling.
  package private(set) var isSteady = false

  package init(models: Int, boundNanoseconds: UInt64) {
    self.models = models
    self.boundNanoseconds = boundNanoseconds
    times = [UInt64](repeating: 0, count: models * Self.windowRounds)
  }

  /// Takes in a round, one time for each model; whether another round is due.
  package func goesOn(_ round: [UInt64]) -> Bool {
    let taken = round.reduce(0, +)
    nanoseconds += taken
    rounds += 1
    let start = models * (inWindow.rounds % Self.windowRounds)
    for model in 0..<models { times[start + model] = round[model] }
    inWindow.nanoseconds += taken
    inWindow.rounds += 1
    if inWindow.nanoseconds >= Self.windowNanoseconds { endWindow() }
    return !isSteady && nanoseconds < boundNanoseconds
  }

  package var json: JSON {
    .object([
      "ns": .integer(Int(clamping: nanoseconds)), "rounds": .integer(rounds), "steady": .bool(isSteady),
    ])
  }

  private func endWindow() {
    let ended = (0..<models).reduce(0) { $0 + median($1) }
    if let level {
      quietWindows = 100 * ended < (100 - Self.fallPercent) * level ? 0 : quietWindows + 1
    }
    level = ended
    inWindow = (0, 0)
    isSteady = quietWindows >= Self.steadyWindows
  }

  /// The lower of two, where there are two.
  private func median(_ model: Int) -> UInt64 {
    let kept = min(inWindow.rounds, Self.windowRounds)
    return (0..<kept).map { times[models * $0 + model] }.sorted()[(kept - 1) / 2]
  }
}
