import BenchApp
import SwiftUI
import UIKit

/// The only screen: what the agent does, how to pair, whether the phone is ready, and what was measured last.
struct AgentView: View {
  let model: AgentModel
  @Environment(\.scenePhase) private var scenePhase
  @State private var dimmer = ScreenDimmer()

  private static let readinessInterval = Duration.seconds(5)

  var body: some View {
    NavigationStack {
      List {
        StatusSection(model: model)
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
    .onChange(of: model.isRunning, initial: true) { _, isRunning in
      UIApplication.shared.isIdleTimerDisabled = isRunning
    }
    .onChange(of: model.isMeasuring && scenePhase == .active, initial: true) { _, isDimmed in
      dimmer.change(UIScreen.main, isDimmed: isDimmed)
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
