#if canImport(Darwin)
  import Darwin
#else
  import Glibc
#endif

/// The clock of every latency, in nanoseconds.
///
/// Read directly, because ContinuousClock gives a value of two integers in attoseconds, whose difference costs
/// more than the reading itself. Both clocks below are read without a system call and stand still while the
/// device sleeps, in which no model is run.
@inline(__always)
package func monotonicNanoseconds() -> UInt64 {
  #if canImport(Darwin)
    return clock_gettime_nsec_np(CLOCK_UPTIME_RAW)
  #else
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
  #endif
}
