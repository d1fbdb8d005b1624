import BenchApp
import BenchKit
import SwiftUI

/// Why the phone would not be measured now, and what to measure in spite of.
struct ReadinessSection: View {
  @Bindable var model: AgentModel

  var body: some View {
    Section {
      if model.reasons.isEmpty {
        Label("Ready to measure", systemImage: "checkmark.circle")
      } else {
        ForEach(model.reasons, id: \.self) { reason in
          Label(reason.title, systemImage: "exclamationmark.triangle")
        }
      }
      DisclosureGroup("Measure in spite of") {
        ForEach(Caveat.allCases, id: \.self) { caveat in
          Toggle(caveat.title, isOn: $model.settings[allows: caveat])
        }
      }
      Toggle("Keep the processor warm", isOn: $model.settings.keepWarm)
    } header: {
      Text("This phone")
    } footer: {
      Text("What is chosen here is recorded with every result. A change ends the connection.")
    }
  }
}
