import BenchApp
import Foundation
import XCTest

/// Runs a bundle as device farms run tests. It is hosted in the app, which is in front meanwhile, or the agent would not
/// measure. The journal is in the app's documents and is attached to the test's result.
final class RunBundleTests: XCTestCase {
  /// Name of the bundle; xcodebuild passes on what is set as `TEST_RUNNER_BLOCKTIME_BUNDLE`.
  private static let variable = "BLOCKTIME_BUNDLE"
  private static let heartbeat = Duration.seconds(10)

  @MainActor
  func testRunBundle() async throws {
    let model = try PhoneAgent.app.get()
    let name = ProcessInfo.processInfo.environment[Self.variable]
    let bundle = try BundleFiles.given(name, resources: Bundle(for: Self.self).resourceURL)
    let telling = Task {
      while !Task.isCancelled {
        print("blocktime: \(model.bundleStatus ?? "starting")")
        try await Task.sleep(for: Self.heartbeat)
      }
    }
    let isDone = await BundleFiles.run(bundle, model)
    telling.cancel()
    let journal = BundleFiles.journal(of: bundle)
    if FileManager.default.fileExists(atPath: journal.path) {
      let attachment = XCTAttachment(contentsOfFile: journal)
      attachment.name = journal.lastPathComponent
      attachment.lifetime = .keepAlways
      add(attachment)
    }
    XCTAssertTrue(isDone, model.bundleStatus ?? "the app runs another bundle")
  }
}
