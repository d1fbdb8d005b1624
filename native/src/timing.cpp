#include "timing.h"

#include "error.h"

#include <chrono>

namespace blocktime {

uint64_t time_execution(LoadedMethod& method, Timed timed) {
  using Clock = std::chrono::steady_clock;
  auto start = Clock::now();
  method.set_inputs();
  if (timed == Timed::execute) {
    start = Clock::now();
  }
  const Error error = method.execute();
  const auto end = Clock::now();
  check(error, "the runtime failed to execute");
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(end - start).count());
}

}  // namespace blocktime
