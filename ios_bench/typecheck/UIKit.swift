// What the app uses of UIKit; for type checks on Linux.
@_exported import Foundation

@MainActor
public final class UIDevice {
  public enum BatteryState: Int, Sendable {
    case unknown, unplugged, charging, full
  }

  public static let current = UIDevice()
  public var isBatteryMonitoringEnabled = false
  public var batteryLevel: Float { -1 }
  public var batteryState: BatteryState { .unknown }
}

@MainActor
public final class UIApplication {
  public static let shared = UIApplication()
  public var isIdleTimerDisabled = false
}

@MainActor
public final class UIScreen {
  public static let main = UIScreen()
  public var brightness: CGFloat = 1
}
