import BenchApp
import Foundation
import SwiftUI

/// A bundle is picked and run here, and its journal sent back.
struct BundleSection: View {
  let model: AgentModel
  @State private var isPicking = false

  var body: some View {
    Section("Without a computer") {
      Button("Run a bundle") { isPicking = true }
        .disabled(model.isRunningBundle)
        .fileImporter(isPresented: $isPicking, allowedContentTypes: [.data]) { picked in
          guard case .success(let file) = picked else { return }
          Task {
            let isOpened = file.startAccessingSecurityScopedResource()
            await BundleFiles.runPicked(file, model)
            if isOpened { file.stopAccessingSecurityScopedResource() }
          }
        }
      if let status = model.bundleStatus { Text(status).foregroundStyle(.secondary) }
    }
  }
}
