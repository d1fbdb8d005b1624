import Foundation

/// A screen whose brightness, from 0 to 1, an app may change.
@MainActor
public protocol DimmableScreen: AnyObject {
  var brightness: CGFloat { get set }
}

/// Dims the screen while models are timed: it has to be on, and its light would heat the phone.
///
/// iOS keeps the brightness that an app has set until the phone is locked, even when the app is away, so it is set back
/// as soon as the app leaves the front.
@MainActor
public final class ScreenDimmer {
  /// Still readable indoors.
  package static let brightness: CGFloat = 0.1
  /// Largest difference between a brightness that was set and one that is read.
  private static let tolerance: CGFloat = 0.01

  private var before: CGFloat?

  public init() {}

  /// Dims the screen or sets it back. A screen that is darker already, or that a person has changed since, stays as it
  /// is.
  public func change(_ screen: some DimmableScreen, isDimmed: Bool) {
    if isDimmed, before == nil, screen.brightness > Self.brightness {
      before = screen.brightness
      screen.brightness = Self.brightness
    } else if !isDimmed, let before {
      if abs(screen.brightness - Self.brightness) < Self.tolerance { screen.brightness = before }
      self.before = nil
    }
  }
}

#if os(iOS)
  import UIKit

  extension UIScreen: DimmableScreen {}
#endif
