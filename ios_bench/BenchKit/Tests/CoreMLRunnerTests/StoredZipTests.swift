import BenchKit
import CoreMLRunner
import Fixtures
import Foundation
import Testing

@Suite("Zip of stored files")
struct StoredZipTests {
  private typealias Entry = ZipWriter.Entry

  @Test("Files and folders come out with their bytes")
  func readsFiles() throws {
    let writer = ZipWriter(entries: [
      Entry(name: "a/"), Entry(name: "a/one", contents: [1, 2, 3]), Entry(name: "a/b/none"),
      Entry(name: "a/two", contents: [9], flags: 1 << 11),
    ])
    let zip = try StoredZip(writer.archive())
    #expect(zip.entries.map(\.path) == [["a"], ["a", "one"], ["a", "b", "none"], ["a", "two"]])
    #expect(zip.entries.map(\.isDirectory) == [true, false, false, false])
    #expect(zip.entries.map { Array(zip.contents(of: $0)) } == [[], [1, 2, 3], [], [9]])
  }

  @Test("A slice of a larger buffer is read from its own start")
  func slice() throws {
    let archive = Data([7, 7, 7]) + ZipWriter(entries: [Entry(name: "x", contents: [5])]).archive()
    let zip = try StoredZip(archive[3...])
    #expect(Array(zip.contents(of: zip.entries[0])) == [5])
  }

  @Test(
    "Names that leave the folder, or that a file system could take for another, are refused",
    arguments: [
      "/etc/passwd", "../up", "a/../../up", "a/./b", "a//b", "..", ".", "/", "a\\..\\b", "c:x", "a\u{0}b",
      "caf\u{e9}", "a\nb", "", String(repeating: "n", count: 513), String(repeating: "d/", count: 16) + "f",
    ])
  func badNames(name: String) {
    #expect(refusal(of: [Entry(name: name)]) != nil)
  }

  @Test("The bounds of names themselves are allowed")
  func longestNames() {
    #expect(refusal(of: [Entry(name: String(repeating: "n", count: 512))]) == nil)
    #expect(refusal(of: [Entry(name: String(repeating: "d/", count: 15) + "f")]) == nil)
  }

  @Test(
    "What is not a plain stored file is refused, and the message says why",
    arguments: [
      ("compressed", [Entry(name: "a", method: 8)]),
      ("encrypted", [Entry(name: "a", flags: 1)]),
      ("stream", [Entry(name: "a", flags: 8)]),
      ("link", [Entry(name: "a", contents: Array("/etc".utf8), mode: 0o120777)]),
      ("special", [Entry(name: "a", mode: 0o010644)]),
      ("special", [Entry(name: "a", mode: 0o040755)]),
      ("has contents", [Entry(name: "a/", contents: [1])]),
      ("twice", [Entry(name: "a"), Entry(name: "a")]),
      ("twice", [Entry(name: "a/B"), Entry(name: "A/b")]),
      ("twice", [Entry(name: "a/"), Entry(name: "a")]),
      ("a file and a folder", [Entry(name: "a"), Entry(name: "a/b")]),
      ("beyond", [Entry(name: "a", contents: [1], claimedSize: 500)]),
      ("two different ways", [Entry(name: "a", localName: "b")]),
    ] as [(String, [ZipWriter.Entry])])
  func badEntries(reason: String, entries: [ZipWriter.Entry]) throws {
    let message = try #require(refusal(of: entries))
    #expect(message.contains(reason))
  }

  @Test("A file inside another file's bytes is refused: unpacking could grow without bound")
  func overlap() throws {
    let inner = Entry(name: "b", contents: [1, 2], inside: 0)
    let outer = Entry(name: "a", contents: Array(inner.localHeader) + inner.contents)
    let message = try #require(refusal(of: [outer, inner]))
    #expect(message.contains("share bytes"))
  }

  @Test("4,096 entries are allowed, one more is not")
  func entryCount() {
    let entries = (0..<StoredZip.maxEntries).map { Entry(name: "\($0)") }
    #expect(refusal(of: entries) == nil)
    #expect(refusal(of: entries + [Entry(name: "more")]) != nil)
    #expect(refusal(of: []) != nil)
  }

  @Test("An archive that is cut anywhere, or has something behind it, is refused")
  func truncated() {
    let whole = ZipWriter(entries: [Entry(name: "a", contents: [1, 2, 3]), Entry(name: "b/c")]).archive()
    for length in 0..<whole.count {
      #expect(refusal(of: whole.prefix(length)) != nil, "\(length) bytes of \(whole.count)")
    }
    #expect(refusal(of: whole + [0]) != nil)
    #expect(refusal(of: ZipWriter(entries: [Entry(name: "a")], comment: "hi").archive()) != nil)
  }

  @Test("Damaged archives are refused or read, and never read beyond their end")
  func fuzz() {
    var random = SplitMix64(state: 7)
    let whole = ZipWriter(entries: [
      Entry(name: "m/"), Entry(name: "m/a", contents: [1, 2, 3, 4]), Entry(name: "m/b", contents: [5]),
    ]).archive()
    var refused = 0
    for _ in 0..<3000 {
      var damaged = whole
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let at = Int.random(in: 0..<damaged.count, using: &random)
        damaged[at] = [0, 1, 0x7f, 0xff, UInt8.random(in: 0...255, using: &random)].randomElement(
          using: &random)!
      }
      guard let zip = try? StoredZip(damaged) else {
        refused += 1
        continue
      }
      for entry in zip.entries { #expect(zip.contents(of: entry).count <= damaged.count) }
    }
    #expect(refused > 1000)
  }

  private func refusal(of entries: [Entry]) -> String? { refusal(of: ZipWriter(entries: entries).archive()) }

  private func refusal(of archive: Data) -> String? {
    do {
      _ = try StoredZip(archive)
      return nil
    } catch let refusal as StoredZip.Refusal {
      return refusal.reason
    } catch {
      Issue.record(error)
      return nil
    }
  }
}

/// Steele, Lea and Flood (2014); the standard library's generators can't be seeded.
private struct SplitMix64: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var bits = state
    bits = (bits ^ bits >> 30) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ bits >> 27) &* 0x94D0_49BB_1331_11EB
    return bits ^ bits >> 31
  }
}
