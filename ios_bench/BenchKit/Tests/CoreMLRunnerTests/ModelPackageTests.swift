import BenchKit
import CoreMLRunner
import Fixtures
import Foundation
import Testing

@Suite("Zip of one .mlpackage")
struct ModelPackageTests {
  private let place: Workplace

  init() throws { place = try Workplace() }

  @Test("Unpacking gives the package as it was")
  func unpacks() throws {
    var writer = ZipWriter.package(["Manifest.json": "{}", "Data/a/b": "bytes"])
    writer.entries.insert(.init(name: "net.mlpackage/Empty/"), at: 0)
    let package = try ModelPackage(zipAt: place.stored(writer.archive()).url).unpack(into: place.folder)
    #expect(package.lastPathComponent == "net.mlpackage")
    let read = { try String(contentsOf: package.appendingPathComponent($0), encoding: .utf8) }
    #expect(try read("Manifest.json") == "{}")
    #expect(try read("Data/a/b") == "bytes")
    var isDirectory: ObjCBool = false
    #expect(
      FileManager.default.fileExists(
        atPath: package.appendingPathComponent("Empty").path, isDirectory: &isDirectory)
        && isDirectory.boolValue)
  }

  @Test("What bench packs is taken: this was written by orchestrator/export/artifacts/artifact.py")
  func packedByBench() throws {
    let packed = """
      UEsDBBQAAAAAAAAAIQB/iVQIAwAAAAMAAAAYAAAAbmV0Lm1scGFja2FnZS9EYXRhL3cuYmluAAECUEsDBBQAAAAAAAAAIQBD
      v6ajAgAAAAIAAAAbAAAAbmV0Lm1scGFja2FnZS9NYW5pZmVzdC5qc29ue31QSwECFAMUAAAAAAAAACEAf4lUCAMAAAADAAAA
      GAAAAAAAAAAAAAAApIEAAAAAbmV0Lm1scGFja2FnZS9EYXRhL3cuYmluUEsBAhQDFAAAAAAAAAAhAEO/pqMCAAAAAgAAABsA
      AAAAAAAAAAAAAKSBOQAAAG5ldC5tbHBhY2thZ2UvTWFuaWZlc3QuanNvblBLBQYAAAAAAgACAI8AAAB0AAAAAAA=
      """
    let archive = try #require(Data(base64Encoded: packed.filter { !$0.isWhitespace }))
    let package = try ModelPackage(zipAt: place.stored(archive).url).unpack(into: place.folder)
    #expect(try Data(contentsOf: package.appendingPathComponent("Data/w.bin")) == Data([0, 1, 2]))
    #expect(try Data(contentsOf: package.appendingPathComponent("Manifest.json")) == Data("{}".utf8))
  }

  @Test(
    "Anything else than one package is a bad model",
    arguments: [
      ["net.mlpackage/Manifest.json", "beside.txt"],
      ["one.mlpackage/Manifest.json", "two.mlpackage/Manifest.json"],
      ["net.mlmodel"], ["net/Manifest.json"], [".mlpackage/Manifest.json"], ["net.mlpackage"],
      ["net.mlpackage/Data/model.mlmodel"], ["net.mlpackage/Manifest.json/"],
      ["../net.mlpackage/Manifest.json"],
    ])
  func notOnePackage(names: [String]) throws {
    let stored = try place.stored(ZipWriter(entries: names.map { .init(name: $0) }).archive())
    #expect(refusal(stored)?.code == .badModel)
  }

  @Test("What is not a zip at all is a bad model", arguments: [0, 1, 21, 22, 5000])
  func noZip(bytes: Int) throws {
    #expect(refusal(try place.stored(Data(repeating: 0x50, count: bytes)))?.code == .badModel)
  }

  @Test("A load leaves nothing behind of a package that is refused")
  func nothingLeft() async throws {
    let stored = try place.stored(ZipWriter(entries: [.init(name: "../up")]).archive())
    let error = try #require(await Client(place.runtime()).refusal(stored))
    #expect(error.code == .badModel)
    #expect(error.message.contains("climbs out of its folder"))
    let left = try FileManager.default.contentsOfDirectory(atPath: place.cache.path + "/iOS-17-5--21F79-")
    #expect(left.isEmpty)
  }

  private func refusal(_ stored: StoredModel) -> OpError? {
    do {
      _ = try ModelPackage(zipAt: stored.url)
      return nil
    } catch {
      return error as? OpError
    }
  }
}
