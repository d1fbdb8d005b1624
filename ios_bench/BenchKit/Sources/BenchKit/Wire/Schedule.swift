/// Which models are timed, in which order.
package struct Schedule: Sendable, Equatable {
  package let handles: [Int]
  /// Indices into `handles`, round after round.
  package let order: [Int]
  package let rounds: Int
  /// Executions of every model before the first round.
  package let warmup: Int
  /// The most time for warming up until latencies stop falling; 0: none.
  package let warmupMilliseconds: Int
  /// A visit begins no sooner than that after the one before; 0: at once.
  package let paceMicroseconds: Int
  /// Whether the processor is kept busy before visits; nil: as the agent's user has it.
  package let keepWarm: Bool?

  package init(
    handles: [Int], order: [Int], rounds: Int, warmup: Int, warmupMilliseconds: Int = 0,
    paceMicroseconds: Int = 0, keepWarm: Bool? = nil
  ) {
    precondition(rounds > 0 && order.count % rounds == 0, "every round has the same number of visits")
    self.handles = handles
    self.order = order
    self.rounds = rounds
    self.warmup = warmup
    self.warmupMilliseconds = warmupMilliseconds
    self.paceMicroseconds = paceMicroseconds
    self.keepWarm = keepWarm
  }

  /// Visits a round.
  package var visits: Int { order.count / rounds }
}
