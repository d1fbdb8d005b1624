import BenchApp
import SwiftUI

/// What was measured since the app was started, newest first.
struct ResultsSection: View {
  let results: [Activity.Result]

  var body: some View {
    Section("Last results") {
      if results.isEmpty { Text("None yet").foregroundStyle(.secondary) }
      ForEach(results) { result in
        DisclosureGroup(result.title) {
          ForEach(result.lines.indices, id: \.self) { index in
            LabeledContent(result.lines[index].model, value: result.lines[index].latency)
              .monospacedDigit()
          }
        }
      }
    }
  }
}

/// Errors reported to clients, newest first.
struct RefusalsSection: View {
  let refusals: [Activity.Refusal]

  var body: some View {
    if !refusals.isEmpty {
      Section("Refused") {
        ForEach(refusals) { refusal in
          VStack(alignment: .leading) {
            Text(refusal.code).bold()
            Text(refusal.message).foregroundStyle(.secondary)
          }
        }
      }
    }
  }
}
