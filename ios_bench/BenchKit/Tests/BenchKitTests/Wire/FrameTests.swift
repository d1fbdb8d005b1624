import BenchKit
import Testing

@Suite("Frames")
struct FrameTests {
  @Test("A golden stream decodes as the manifest says", arguments: Golden.cases)
  func golden(stream: Golden.Case) {
    let (frames, ends) = decode(stream.bytes)
    #expect(ends == stream.ends)
    #expect(frames.count == stream.frames.count)
    for (frame, expected) in zip(frames, stream.frames) {
      #expect(
        frame.payload.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() == expected.payloadHex)
      if let header = expected.header { #expect(frame.header.sorted == header.sorted) }
      if let bytes = expected.headerBytes { #expect(frame.header.bytes.count == bytes) }
    }
  }

  @Test("The golden streams are there")
  func there() {
    #expect(Golden.cases.count >= 60)
    #expect(Golden.cases.filter { $0.message?.isValid == false }.count >= 10)
  }

  @Test(
    "A golden request is taken where it keeps to its schema, and refused where not",
    arguments: Golden.requests)
  func requests(stream: Golden.Case) throws {
    let (schema, isValid) = try #require(stream.message)
    let op = try #require(Request.Op(rawValue: String(schema.prefix { $0 != "." })))
    let header = try #require(stream.frames.first?.header)
    if isValid {
      #expect(throws: Never.self) { try Request(op, header: header) }
    } else {
      #expect(throws: OpError.self) { try Request(op, header: header) }
    }
  }

  @Test("A frame's limits hold for what is sent")
  func sending() {
    #expect(throws: FrameError.self) { try Frame.encode([], payloadBytes: Limits.payloadBytes + 1) }
    let long = JSON.string(String(repeating: "x", count: Limits.headerBytes))
    #expect(throws: FrameError.self) { try Frame.encode([.init("a", long)]) }
  }

  @Test("What is sent is read back, its payload announced only where there is one")
  func roundTrip() throws {
    let sent = try Frame.encode([.init("id", .integer(1))], payloadBytes: 2) + [7, 8] + Frame.encode([])
    let (frames, ends) = decode(sent)
    #expect(ends == "end")
    #expect(frames.map(\.payload) == [[7, 8], []])
    #expect(frames.map(\.header) == [.object(["id": .integer(1), "payload": .integer(2)]), .object([])])
  }

  @Test("Memory for a payload grows with what arrives, not with what is announced")
  func announced() {
    let header = Array(#"{"payload":1073741824}"#.utf8)
    let (frames, ends) = decode([0, 0, 0, UInt8(header.count)] + header + [1, 2, 3])
    #expect(frames.isEmpty)
    #expect(ends == "truncated")
  }

  @Test("Placements that would not fit into a header tell their counts alone")
  func placement() {
    let operation = { (name: String) in Placement.Operation(name: name, type: "conv", unit: .gpu, cost: 0.5) }
    let many = Placement(operations: Array(repeating: operation("x"), count: Limits.operations + 1))
    #expect(many.json["gpu"] == .integer(Limits.operations + 1))
    #expect(many.json["operations"] == .array([]))
    let wide = Placement(
      operations: Array(repeating: operation(String(repeating: "\u{1}", count: 80)), count: 8000))
    #expect(wide.json["operations"] == .array([]))
    let worst = Placement(
      operations: Array(repeating: operation(String(repeating: "x", count: 38)), count: Limits.operations))
    #expect(worst.json["operations"] != .array([]))
    #expect(worst.json.bytes.count < Limits.headerBytes - 10_000)
  }
}
