import BenchApp
import SwiftUI

/// The benchmark agent as an app. All that it does is in BenchKit; here are only its views.
@main
struct BenchmarkApp: App {
  var body: some Scene {
    WindowGroup {
      switch PhoneAgent.app {
      case .success(let model): AgentView(model: model)
      case .failure(let error):
        ContentUnavailableView(
          "The agent can't start", systemImage: "exclamationmark.triangle",
          description: Text("\(error.localizedDescription) Free some storage and open the app again."))
      }
    }
  }
}
