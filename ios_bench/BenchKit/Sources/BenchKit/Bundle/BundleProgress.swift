/// Where a bundle stands, read from the records of its journal.
struct BundleProgress {
  private(set) var begun: [Int: Int] = [:]
  private var over: Set<Int> = []
  private var loading: String?
  /// How often the agent was ended while it loaded a model.
  private(set) var deaths: [String: Int] = [:]
  /// Models that are left out.
  private(set) var failed: Set<String> = []
  /// Midmeans of the log ratios of each model's loads in batches that are done.
  private(set) var loads: [String: [Double]] = [:]
  /// Seconds of all batches that ended.
  private(set) var worked = 0.0
  /// The first reply to a hello.
  private(set) var greeting: JSON?
  private(set) var isFinished = false

  /// Takes in the next record.
  mutating func add(_ record: JSON) {
    let kind = record["kind"]?.text
    let sha256 = record["sha256"]?.text ?? ""
    let batch = record["batch"]?.int ?? 0
    switch kind {
    case "start":
      greeting = greeting ?? record["hello"]
      if let loading { deaths[loading, default: 0] += 1 }
    case "batch": begun[batch, default: 0] += 1
    case "end":
      if record["again"]?.bool == false { over.insert(batch) }
      worked += record["worked_s"]?.double ?? 0
      for log in record["logs"]?.fields ?? [] { loads[log.key, default: []].append(log.value.double ?? 0) }
    case "failed": failed.insert(sha256)
    case "done": isFinished = true
    default: break
    }
    loading = kind == "loading" ? sha256 : nil
  }

  /// Whether a batch is to be begun, for the first time or again.
  func wants(_ batch: Int, attempts: Int) -> Bool {
    !over.contains(batch) && begun[batch, default: 0] < attempts
  }
}
