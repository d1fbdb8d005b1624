import BenchKit
import Foundation

/// What the agent does and did, as the screen shows it.
public struct Activity: Sendable, Equatable {
  public enum Status: Sendable, Equatable {
    case stopped(reason: String?)
    case listening
    case connected
  }

  /// A finished run, newest first in `results`.
  public struct Result: Sendable, Equatable, Identifiable {
    public let id: Int
    public let title: String
    public let lines: [Line]
  }

  /// One model's part in a run.
  public struct Line: Sendable, Equatable {
    public let model: String
    public let latency: String
  }

  /// An error reported to a client.
  public struct Refusal: Sendable, Equatable, Identifiable {
    public let id: Int
    public let code: String
    public let message: String
  }

  static let maxResults = 10
  private static let maxRefusals = 5

  public private(set) var status = Status.stopped(reason: nil)
  /// Nil where nothing is in work.
  public private(set) var work: String?
  public private(set) var results: [Result] = []
  public private(set) var refusals: [Refusal] = []
  private var count = 0

  public init() {}

  package mutating func apply(_ event: AgentEvent) {
    count += 1
    switch event {
    case .listening:
      work = nil
      status = .listening
    case .connected: status = .connected
    case .working(let text): work = text
    case .measured(let run):
      work = nil
      results.insert(Result(id: count, run), at: 0)
      results = Array(results.prefix(Self.maxResults))
    case .refused(let code, let message):
      work = nil
      refusals.insert(Refusal(id: count, code: code.rawValue, message: message), at: 0)
      refusals = Array(refusals.prefix(Self.maxRefusals))
    case .disconnected:
      work = nil
      if status == .connected { status = .listening }
    case .stopped(let reason):
      work = nil
      status = .stopped(reason: reason)
    }
  }
}

/// When events are shown: a finished run with what comes next, because a screen that is drawn disturbs a run that
/// follows at once.
package struct Moments {
  private var finished: [AgentEvent] = []

  package init() {}

  /// The events that are to be shown now that this one has come.
  package mutating func take(_ event: AgentEvent) -> [AgentEvent] {
    if case .measured = event {
      finished = finished.suffix(Activity.maxResults - 1) + [event]
      return []
    }
    defer { finished = [] }
    return finished + [event]
  }
}

extension Activity.Result {
  fileprivate init(id: Int, _ run: RunResult) {
    self.id = id
    title = "\(run.entries.count) models, \(run.rounds) rounds"
    lines = run.entries.map { entry in
      Activity.Line(
        model: "\(entry.sha256.prefix(8)) \(entry.runtime)",
        latency: String(format: "%.3f ms", Double(entry.medianNanoseconds) / 1e6))
    }
  }
}
