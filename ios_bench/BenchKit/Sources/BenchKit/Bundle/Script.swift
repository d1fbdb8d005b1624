/// What an agent does with a bundle; PROTOCOL.md, "Bundles", says what each field means.
struct Script {
  /// Times are in seconds.
  struct Rules {
    let attempts, deaths: Int
    let poll, wait, cool: Double
    let hotHeadroom, coolHeadroom: Double
  }

  /// When there is enough; without it all rounds of all batches are run.
  struct Stop {
    let minRounds, minPasses: Int
    let loadError, halfWidth, budget: Double
  }

  struct Batch {
    let passIndex, group: Int
    let slots: [String]
    let loading: [Int]
    let orders: [[[Int]]]
    let placement: Bool
  }

  let rules: Rules
  let load: [JSON.Field]
  let run: [JSON.Field]
  let batches: [Batch]
  let stop: Stop?

  var runtime: String { JSON.object(load)["runtime"]?.text ?? "" }

  /// Nil where `document` is no script.
  init?(_ document: JSON) {
    guard let rules = document["rules"].flatMap(Rules.init), let load = document["load"]?.fields,
      let run = document["run"]?.fields, let items = document["batches"]?.items
    else { return nil }
    let batches = items.compactMap(Batch.init)
    guard batches.count == items.count else { return nil }
    (self.rules, self.load, self.run, self.batches) = (rules, load, run, batches)
    let stop = document["stop"] ?? .null
    guard stop != .null else {
      self.stop = nil
      return
    }
    guard let given = Stop(stop) else { return nil }
    self.stop = given
  }
}

extension Script.Rules {
  init?(_ document: JSON) {
    guard let attempts = document["attempts"]?.int, let deaths = document["deaths"]?.int,
      let poll = document["poll_s"]?.double, let wait = document["wait_s"]?.double,
      let cool = document["cool_s"]?.double, let hot = document["hot_headroom"]?.double,
      let coolHeadroom = document["cool_headroom"]?.double
    else { return nil }
    self.init(
      attempts: attempts, deaths: deaths, poll: poll, wait: wait, cool: cool, hotHeadroom: hot,
      coolHeadroom: coolHeadroom)
  }
}

extension Script.Stop {
  init?(_ document: JSON) {
    guard let minRounds = document["min_rounds"]?.int, let loadError = document["load_se"]?.double,
      let minPasses = document["min_passes"]?.int, let halfWidth = document["half_width"]?.double,
      let budget = document["budget_s"]?.double
    else { return nil }
    self.init(
      minRounds: minRounds, minPasses: minPasses, loadError: loadError, halfWidth: halfWidth, budget: budget)
  }
}

extension Script.Batch {
  init?(_ document: JSON) {
    guard let passIndex = document["pass_index"]?.int, let group = document["group"]?.int,
      let slots = document["slots"]?.items?.compactMap(\.text), let placement = document["placement"]?.bool,
      let loading = document["loading"].flatMap(Self.numbers), let orders = document["orders"]?.items
    else { return nil }
    let rounds = orders.map { $0.items?.compactMap(Self.numbers) ?? [] }
    guard (loading + rounds.joined().joined()).allSatisfy(slots.indices.contains) else { return nil }
    self.init(
      passIndex: passIndex, group: group, slots: slots, loading: loading, orders: rounds, placement: placement
    )
  }

  private static func numbers(_ list: JSON) -> [Int]? {
    guard let items = list.items else { return nil }
    let numbers = items.compactMap(\.int)
    return numbers.count == items.count ? numbers : nil
  }
}
