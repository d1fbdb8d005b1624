/// What an agent does, for those who show it. Nothing is sent while a model is timed or right before.
public enum AgentEvent: Sendable, Equatable {
  case listening(port: UInt16)
  case connected
  /// A request is being worked on, in words for people.
  case working(String)
  /// Another run may follow at once, so that this is no moment to draw.
  case measured(RunResult)
  /// A request was answered with an error, or a connection ended with one.
  case refused(code: ErrorCode, message: String)
  case disconnected
  /// No longer listening, with the reason if it was not requested.
  case stopped(reason: String?)
}

/// A finished run.
public struct RunResult: Sendable, Equatable {
  /// One model's part in a run.
  public struct Entry: Sendable, Equatable {
    public let sha256: String
    public let runtime: String
    public let medianNanoseconds: UInt64
    public let visits: Int
  }

  public let rounds: Int
  public let entries: [Entry]

  package init(rounds: Int, entries: [Entry]) {
    self.rounds = rounds
    self.entries = entries
  }
}
