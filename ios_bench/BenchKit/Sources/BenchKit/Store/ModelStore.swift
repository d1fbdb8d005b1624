import Foundation

/// Model files named by their SHA-256, bounded in total, those evicted first that were loaded longest ago.
/// A file is there whole or not at all. Used by one connection at a time.
public struct ModelStore: Sendable {
  public static let defaultMaxBytes = 4 << 30

  /// A half-received file older than this belongs to no living agent, even if several share the folder.
  private static let staleAfterSeconds = 24 * 3600

  private static let incomingPrefix = ".incoming-"

  private let root: URL
  private let maxBytes: Int

  /// A store in the folder `root`, which is made if it is not there. Throws what FileManager throws.
  public init(root: URL, maxBytes: Int = ModelStore.defaultMaxBytes) throws {
    self.root = root
    self.maxBytes = maxBytes
    try FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
    for name in try names(incoming: true) {
      let path = root.appendingPathComponent(name).path
      if let age = StoredFile(path: path)?.ageSeconds, age > Self.staleAfterSeconds { unlink(path) }
    }
  }

  /// Whether the model is there.
  package func has(_ sha256: String) -> Bool {
    StoredFile(path: path(of: sha256)) != nil
  }

  /// Stores `payload`, evicting models that are not among `inUse` to make room.
  ///
  /// Throws OpError `storage_full` or `hash_mismatch`; nothing partial is left behind then.
  package func put(_ sha256: String, _ payload: Payload, inUse: Set<String> = []) throws {
    try makeRoom(for: payload.bytes, keeping: inUse.union([sha256]))
    let incoming = root.appendingPathComponent("\(Self.incomingPrefix)\(getpid())-\(sha256)").path
    defer { unlink(incoming) }
    do {
      let found = try receive(payload, into: incoming)
      guard found == sha256 else {
        throw OpError(.hashMismatch, "the bytes have sha256 \(found), not \(sha256); send them again")
      }
      try retrying("rename") { rename(incoming, path(of: sha256)) }
    } catch let error as PosixError where [ENOSPC, EDQUOT, EFBIG].contains(error.code) {
      throw OpError(
        .storageFull,
        "no space for \(payload.bytes) bytes in the model store; free some or use another folder")
    }
  }

  /// The model's file, its content checked and its use noted.
  ///
  /// Throws OpError `unknown_model`, or `hash_mismatch` where the file was damaged (it is then removed).
  package func model(_ sha256: String) throws -> StoredModel {
    let path = path(of: sha256)
    do {
      let found = try ContentHash.ofFile(path)
      guard found.sha256 == sha256 else {
        unlink(path)
        throw OpError(.hashMismatch, "the stored model \(sha256.prefix(12)) was damaged; put it again")
      }
      utimensat(AT_FDCWD, path, nil, 0)
      return StoredModel(sha256: sha256, url: root.appendingPathComponent(sha256), bytes: found.bytes)
    } catch let error as PosixError where error.code == ENOENT {
      throw OpError(.unknownModel, "no model \(sha256.prefix(12)) is stored; put it first")
    }
  }

  /// Writes `payload` to the file at `path` and returns its hash.
  private func receive(_ payload: Payload, into path: String) throws -> String {
    let file = try retrying("open") { open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600) }
    defer { closeDescriptor(file) }
    var hash = ContentHash()
    try payload.forEachChunk { chunk in
      hash.update(chunk)
      var rest = chunk[...]
      while !rest.isEmpty {
        let bytes = UnsafeRawBufferPointer(rebasing: rest)
        rest = rest.dropFirst(try retrying("write") { write(file, bytes.baseAddress, bytes.count) })
      }
    }
    try retrying("fsync") { fsync(file) }
    return hash.finish()
  }

  private func makeRoom(for bytes: Int, keeping kept: Set<String>) throws {
    let files = try names(incoming: false)
      .compactMap { name in StoredFile(path: path(of: name)).map { (name, $0) } }
      .sorted { $0.1.lastUse < $1.1.lastUse }
    var used = files.reduce(0) { $0 + $1.1.bytes }
    for (name, file) in files where used + bytes > maxBytes && !kept.contains(name) {
      unlink(path(of: name))
      used -= file.bytes
    }
    guard used + bytes <= maxBytes else {
      throw OpError(
        .storageFull,
        "\(bytes) bytes do not fit: the store holds at most \(maxBytes) and loaded models take \(used); "
          + "unload models or start the agent with a larger store")
    }
  }

  private func names(incoming: Bool) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: root.path)
      .filter { incoming ? $0.hasPrefix(Self.incomingPrefix) : !$0.hasPrefix(".") }
  }

  private func path(of sha256: String) -> String {
    root.appendingPathComponent(sha256).path
  }
}

/// Size and last use of a regular file.
private struct StoredFile {
  let bytes: Int
  let lastUse: (seconds: Int, nanoseconds: Int)

  /// Nil where there is no such file.
  init?(path: String) {
    var status = stat()
    guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
    bytes = Int(status.st_size)
    #if canImport(Darwin)
      lastUse = (status.st_mtimespec.tv_sec, status.st_mtimespec.tv_nsec)
    #else
      lastUse = (status.st_mtim.tv_sec, status.st_mtim.tv_nsec)
    #endif
  }

  var ageSeconds: Int { time(nil) - lastUse.seconds }
}
