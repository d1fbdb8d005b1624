// What the test of the app uses of XCTest as it is on iOS; for type checks on Linux, whose XCTest has no attachments.
@_exported import Foundation

open class XCTestCase {
  public init() {}
  public func add(_ attachment: XCTAttachment) {}
}

public final class XCTAttachment {
  public enum Lifetime: Int, Sendable {
    case keepAlways, deleteOnSuccess
  }

  public init(contentsOfFile url: URL) {}
  public var name: String?
  public var lifetime = Lifetime.deleteOnSuccess
}

// swift-format-ignore: AlwaysUseLowerCamelCase
public func XCTAssertTrue(
  _ expression: @autoclosure () throws -> Bool, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) {}
