/// What a connection has loaded, by handle.
struct LoadedModels {
  struct Entry {
    let sha256: String
    let runtime: String
    let model: any Model
    let readPlacement: PlacementReader
  }

  private var entries: [Int: Entry] = [:]
  private var lastHandle = 0

  var isFull: Bool { entries.count >= Limits.handles }

  /// Stored models that are in use.
  var hashes: Set<String> { Set(entries.values.map(\.sha256)) }

  /// Keeps a model under a handle that was never used.
  mutating func add(_ entry: Entry) -> Int {
    lastHandle += 1
    entries[lastHandle] = entry
    return lastHandle
  }

  /// Throws OpError `unknown_handle`.
  func entry(_ handle: Int) throws -> Entry {
    guard let entry = entries[handle] else {
      throw OpError(.unknownHandle, "no model is loaded as handle \(handle)")
    }
    return entry
  }

  /// Frees a model; throws OpError `unknown_handle`.
  mutating func close(_ handle: Int) throws {
    try entry(handle).model.close()
    entries[handle] = nil
  }

  mutating func closeAll() {
    for entry in entries.values { entry.model.close() }
    entries.removeAll()
  }
}
