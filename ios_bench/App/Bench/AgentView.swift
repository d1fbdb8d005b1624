import BenchApp
import SwiftUI
import UIKit

/// The only screen: what the agent does, how to pair, whether the phone is ready, and what was measured last.
struct AgentView: View {
  let model: AgentModel
  @Environment(\.scenePhase) private var scenePhase

  private static let readinessInterval = Duration.seconds(5)

  var body: some View {
    NavigationStack {
      List {
        StatusSection(activity: model.activity)
        if let code = model.pairingCode { PairingSection(code: code) }
        ReadinessSection(model: model)
        BundleSection(model: model)
        ResultsSection(results: model.activity.results)
        RefusalsSection(refusals: model.activity.refusals)
      }
      .navigationTitle("blocktime")
    }
    .onChange(of: scenePhase, initial: true) { _, phase in
      model.phaseChanged(isActive: phase == .active)
    }
    .onChange(of: model.keepsScreenOn, initial: true) { _, keepsScreenOn in
      UIApplication.shared.isIdleTimerDisabled = keepsScreenOn
    }
    .task { await BundleFiles.runLaunched(model.launchedBundle, model) }
    .task {
      while !Task.isCancelled {
        await model.refreshReasons()
        try? await Task.sleep(for: Self.readinessInterval)
      }
    }
  }
}
