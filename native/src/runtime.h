#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace blocktime {

/// Must be called before anything of ExecuTorch is used; any number of times, from any thread.
void start_runtime();

const char* runtime_version();

/// Names of the backends that are registered and available.
std::vector<std::string> available_backends();

uint32_t thread_count();

/// Resets the process-wide pool. Throws Failure(InvalidState) while a method is loaded with another number,
/// because a reset frees the pool that loaded methods keep using.
void set_thread_count(uint32_t threads);

/// Lets all threads of this process, and those that they will start, run on `cores` alone. Throws
/// Failure(InvalidState) while a method is loaded with others, Failure(NotSupported) where the system does not allow it.
void set_cores(const std::vector<uint32_t>& cores);

/// Keeps the pool and its cores as they are while it lives; every loaded method holds one.
class PoolUse {
 public:
  PoolUse();
  ~PoolUse();
  PoolUse(const PoolUse&) = delete;
  PoolUse& operator=(const PoolUse&) = delete;
};

}  // namespace blocktime
