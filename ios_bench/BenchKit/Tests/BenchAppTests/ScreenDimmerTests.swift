import BenchApp
import Foundation
import Testing

@Suite("Brightness of the screen while models are timed")
@MainActor
struct ScreenDimmerTests {
  private let dimmer = ScreenDimmer()
  private let screen = FakeScreen()

  @Test("It is dimmed, and set back where it was")
  func dims() {
    screen.brightness = 0.8
    for _ in 0..<2 { dimmer.change(screen, isDimmed: true) }
    #expect(screen.brightness == ScreenDimmer.brightness)
    for _ in 0..<2 { dimmer.change(screen, isDimmed: false) }
    #expect(screen.brightness == 0.8)
  }

  @Test("What a person sets meanwhile stays")
  func changedMeanwhile() {
    screen.brightness = 0.8
    dimmer.change(screen, isDimmed: true)
    screen.brightness = 0.5
    dimmer.change(screen, isDimmed: false)
    #expect(screen.brightness == 0.5)
  }

  @Test("A screen that is darker is not lit up")
  func darker() {
    screen.brightness = 0.05
    dimmer.change(screen, isDimmed: true)
    dimmer.change(screen, isDimmed: false)
    #expect(screen.brightness == 0.05)
  }
}

/// A screen without light.
private final class FakeScreen: DimmableScreen {
  var brightness: CGFloat = 0
}
