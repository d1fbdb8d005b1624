/// Whether Core ML is what stands in for it here, whose models are JSON, as Package.swift chooses.
#if os(Linux)
  package let standsInForCoreML = true
#else
  package let standsInForCoreML = false
#endif
