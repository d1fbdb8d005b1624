import BenchKit
import Foundation
import Testing

@Suite("Model store")
struct ModelStoreTests {
  private let folder = TemporaryFolder()

  private func store(maxBytes: Int = 100) throws -> ModelStore {
    try ModelStore(root: folder.url, maxBytes: maxBytes)
  }

  private func payload(_ bytes: [UInt8], announced: Int? = nil) throws -> Payload {
    let frame = try Frame.encode([], payloadBytes: announced ?? bytes.count) + bytes
    return try #require(try Frame.read(from: ByteStream(frame))).payload
  }

  @discardableResult
  private func put(_ bytes: [UInt8], into store: ModelStore, inUse: Set<String> = []) throws -> String {
    try store.put(hash(bytes), payload(bytes), inUse: inUse)
    return hash(bytes)
  }

  /// Sets when a stored model was used last.
  private func touch(_ sha256: String, secondsAgo: Int) {
    let time = timeval(tv_sec: Int(Date().timeIntervalSince1970) - secondsAgo, tv_usec: 0)
    utimes(folder.url.appendingPathComponent(sha256).path, [time, time])
  }

  private func code(_ body: () throws -> Void) -> ErrorCode? {
    do { try body() } catch let error as OpError { return error.code } catch { Issue.record(error) }
    return nil
  }

  @Test("What is put is there, under its hash, with its bytes")
  func roundTrip() throws {
    let store = try store(maxBytes: 1 << 21)
    let bytes = (0..<600_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
    #expect(!store.has(hash(bytes)))
    let sha256 = try put(bytes, into: store)
    #expect(store.has(sha256))
    let model = try store.model(sha256)
    #expect(model.bytes == bytes.count)
    #expect(try Data(contentsOf: model.url) == Data(bytes))
    #expect(folder.names == [sha256])
  }

  @Test("Other bytes than announced are refused, and nothing is left")
  func wrongHash() throws {
    let store = try store()
    #expect(code { try store.put(hash([1]), payload([2])) } == .hashMismatch)
    #expect(folder.names.isEmpty)
  }

  @Test("A stream that ends early leaves nothing")
  func truncated() throws {
    let store = try store()
    #expect(throws: FrameError.self) { try store.put(hash([1]), payload([1], announced: 5)) }
    #expect(folder.names.isEmpty)
  }

  @Test("Models that were loaded longest ago make room")
  func eviction() throws {
    let store = try store()
    let old = try put([UInt8](repeating: 1, count: 40), into: store)
    let new = try put([UInt8](repeating: 2, count: 40), into: store)
    touch(old, secondsAgo: 100)
    touch(new, secondsAgo: 200)
    _ = try store.model(new)
    let third = try put([UInt8](repeating: 3, count: 40), into: store)
    #expect(folder.names == [new, third])
  }

  @Test("A loaded model is never evicted, and the bound is never passed")
  func inUse() throws {
    let store = try store()
    let loaded = try put([UInt8](repeating: 1, count: 60), into: store)
    #expect(
      code { try put([UInt8](repeating: 2, count: 60), into: store, inUse: [loaded]) } == .storageFull)
    #expect(folder.names == [loaded])
    #expect(code { try put([UInt8](repeating: 3, count: 101), into: store) } == .storageFull)
  }

  @Test("A damaged model is refused and removed")
  func damaged() throws {
    let store = try store()
    let sha256 = try put([1, 2, 3], into: store)
    try Data([1, 2, 4]).write(to: folder.url.appendingPathComponent(sha256))
    #expect(code { _ = try store.model(sha256) } == .hashMismatch)
    #expect(!store.has(sha256))
    #expect(code { _ = try store.model(sha256) } == .unknownModel)
  }

  @Test("Old halves of files are cleared away; those of a living agent are not, nor count as models")
  func stale() throws {
    for name in [".incoming-1-a", ".incoming-2-b"] {
      try Data([1]).write(to: folder.url.appendingPathComponent(name))
    }
    touch(".incoming-1-a", secondsAgo: 25 * 3600)
    _ = try store()
    #expect(folder.names == [".incoming-2-b"])
  }

  @Test("A folder in the place of a model is not a model")
  func folderAsModel() throws {
    let store = try store()
    let name = String(repeating: "a", count: 64)
    try FileManager.default.createDirectory(
      at: folder.url.appendingPathComponent(name), withIntermediateDirectories: false)
    #expect(!store.has(name))
  }
}
