#pragma once

#include <cstddef>
#include <cstdint>

namespace blocktime {

/// Lets all threads of this process, and those that they will start, run on `count` cores alone. 0, or why not as an
/// errno; EPERM where the system gives only a part of them.
int pin_threads(const uint32_t* cores, size_t count) noexcept;

}  // namespace blocktime
