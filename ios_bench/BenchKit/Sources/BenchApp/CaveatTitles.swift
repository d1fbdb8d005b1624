import BenchKit

extension Caveat {
  /// A few words for the screen.
  public var title: String {
    switch self {
    case .debuggableBuild: "Debug build"
    case .powerSave: "Low power mode"
    case .lowBattery: "Low battery"
    case .throttled: "Hot, throttling"
    case .background: "Not in front"
    }
  }
}
