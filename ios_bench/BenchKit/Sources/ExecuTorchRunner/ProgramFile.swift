import BenchKit
import Foundation

/// Reads from a .pte what ExecuTorch's API does not expose: how many parts of a method each backend took.
///
/// The file is a flatbuffer. Numbers of fields are those of ExecuTorch's schema/program.fbs, whose fields are never
/// renumbered. Every offset is checked against the file.
package struct ProgramFile {
  /// The file is not a program that can be read.
  package struct Damaged: Error {
    package let reason: String
  }

  private static let executionPlans = 1
  private static let planName = 0
  private static let planDelegates = 7
  private static let delegateId = 0
  private static let mostElements = 100_000
  private static let longestString = 256

  private let data: Data
  private let root: Int

  package init(_ data: Data) throws {
    self.data = data
    guard data.count >= 8, data[data.startIndex + 4] == UInt8(ascii: "E"),
      data[data.startIndex + 5] == UInt8(ascii: "T")
    else { throw Damaged(reason: "no ExecuTorch program") }
    root = try Self.integer(data, at: 0, as: UInt32.self)
  }

  /// Backends of `method` in alphabetical order.
  package func delegates(of method: String) throws -> [Delegate] {
    for plan in try tables(in: root, field: Self.executionPlans)
    where try string(in: plan, field: Self.planName) == method {
      let names = try tables(in: plan, field: Self.planDelegates).map {
        try string(in: $0, field: Self.delegateId)
      }
      return Dictionary(grouping: names) { $0 }
        .map { Delegate(backend: $0.key, count: $0.value.count) }
        .sorted { $0.backend < $1.backend }
    }
    throw Damaged(reason: "no method \(method)")
  }

  /// Position of a table's field; nil where the table does not have it.
  private func position(in table: Int, field: Int) throws -> Int? {
    let vtable = table - (try Self.integer(data, at: table, as: Int32.self))
    let vtableBytes = try Self.integer(data, at: vtable, as: UInt16.self)
    let entry = 4 + 2 * field
    guard entry + 2 <= vtableBytes else { return nil }
    let offset = try Self.integer(data, at: vtable + entry, as: UInt16.self)
    return offset == 0 ? nil : table + offset
  }

  /// Where the vector or string begins to which the field at `position` points, and how long it is.
  private func vector(at position: Int) throws -> (start: Int, count: Int) {
    let vector = position + (try Self.integer(data, at: position, as: UInt32.self))
    return (vector + 4, try Self.integer(data, at: vector, as: UInt32.self))
  }

  private func tables(in table: Int, field: Int) throws -> [Int] {
    guard let position = try position(in: table, field: field) else { return [] }
    let (start, count) = try vector(at: position)
    guard count <= Self.mostElements else { throw Damaged(reason: "a list of \(count) elements") }
    return try (0..<count).map { index in
      let entry = start + 4 * index
      return entry + (try Self.integer(data, at: entry, as: UInt32.self))
    }
  }

  private func string(in table: Int, field: Int) throws -> String {
    guard let position = try position(in: table, field: field) else { return "" }
    let (start, count) = try vector(at: position)
    guard count <= Self.longestString, start + count <= data.count else {
      throw Damaged(reason: "a long name")
    }
    return String(decoding: data[data.startIndex + start..<data.startIndex + start + count], as: UTF8.self)
  }

  private static func integer<Number: FixedWidthInteger>(
    _ data: Data, at position: Int, as _: Number.Type
  ) throws -> Int {
    guard position >= 0, position + MemoryLayout<Number>.size <= data.count else {
      throw Damaged(reason: "an offset leads out of the file")
    }
    return data.withUnsafeBytes { bytes in
      Int(Number(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: Number.self)))
    }
  }
}
