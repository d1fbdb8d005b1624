#pragma once

#include "loaded_method.h"

#include <cstdint>

namespace blocktime {

/// What lies between the two readings of the clock: the execution alone, or the setting of the inputs too, as in
/// ExecuTorch's Module::forward.
enum class Timed { execute, forward };

/// Nanoseconds of one execution. Throws Failure where the runtime fails.
uint64_t time_execution(LoadedMethod& method, Timed timed);

}  // namespace blocktime
