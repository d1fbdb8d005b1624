import Foundation

/// Runs `body`, and frees what Apple's frameworks have left to be freed later: a thread of one's own never does. Nothing
/// is thrown through the pool, whose function takes errors in one way or another, depending on the SDK.
package func withAutoreleasePool(_ body: () -> Void) {
  #if canImport(ObjectiveC)
    autoreleasepool { body() }
  #else
    body()
  #endif
}
