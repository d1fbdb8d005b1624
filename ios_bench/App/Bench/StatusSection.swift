import BenchApp
import SwiftUI

/// Whether somebody is connected, what is in work, and a button that ends it.
struct StatusSection: View {
  let model: AgentModel

  var body: some View {
    Section("Agent") {
      switch model.activity.status {
      case .stopped(let reason):
        Label(reason ?? "Not listening", systemImage: "stop.circle")
      case .listening:
        Label("Waiting for bench", systemImage: "cable.connector")
      case .connected:
        Label("Connected", systemImage: "checkmark.circle")
      }
      if let work = model.activity.work { Text(work).foregroundStyle(.secondary) }
      if model.isRunning {
        Button("Stop") { Task { await model.stop() } }
      } else {
        Button("Start") { Task { await model.start() } }
      }
    }
  }
}

/// The code that `bench` asks for where it could not start the app itself.
struct PairingSection: View {
  let code: String

  var body: some View {
    Section {
      Text(code)
        .font(.system(.largeTitle, design: .monospaced))
        .bold()
        .textSelection(.enabled)
        .accessibilityLabel(code.map(String.init).joined(separator: " "))
    } header: {
      Text("Pairing code")
    } footer: {
      Text("Type it where bench asks for it. It changes when the app is started again.")
    }
  }
}
