import Foundation

/// Runs `body`, and frees what Apple's frameworks have left to be freed later: a thread of one's own never does.
package func withAutoreleasePool<Result>(_ body: () throws -> Result) rethrows -> Result {
  #if canImport(ObjectiveC)
    return try autoreleasepool(invoking: body)
  #else
    return try body()
  #endif
}
