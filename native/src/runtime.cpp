#include "runtime.h"

#include "affinity.h"
#include "error.h"

#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/platform/runtime.h>

#include <mutex>

// The wheel exports the pool but ships no threadpool.h: these are its declarations, as far as they are used.
namespace executorch::extension::threadpool {
class ThreadPool final {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t num_threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace blocktime {
namespace {

using executorch::extension::threadpool::get_threadpool;
using executorch::extension::threadpool::ThreadPool;

constexpr uint32_t kMaxThreads = 1024;

std::mutex pool_mutex;
size_t pool_uses = 0;
std::vector<uint32_t> pool_cores;

ThreadPool& pool() {
  start_runtime();
  ThreadPool* const found = get_threadpool();
  if (found == nullptr) {
    throw Failure(Error::OutOfResources, "ExecuTorch could not start its thread pool");
  }
  return *found;
}

}  // namespace

void start_runtime() {
  capture_log();
  executorch::runtime::runtime_init();
}

const char* runtime_version() { return EXECUTORCH_VERSION; }

std::vector<std::string> available_backends() {
  std::vector<std::string> names;
  for (size_t i = 0; i < executorch::runtime::get_num_registered_backends(); ++i) {
    const char* const name = take(executorch::runtime::get_backend_name(i), "cannot read the backends");
    const auto* const backend = executorch::runtime::get_backend_class(name);
    if (backend != nullptr && backend->is_available()) {
      names.emplace_back(name);
    }
  }
  return names;
}

uint32_t thread_count() { return static_cast<uint32_t>(pool().get_thread_count()); }

void set_thread_count(uint32_t threads) {
  if (threads < 1 || threads > kMaxThreads) {
    throw Failure(Error::InvalidArgument, "threads must be 1 to 1024, got " + std::to_string(threads));
  }
  const std::lock_guard<std::mutex> lock(pool_mutex);
  const uint32_t current = thread_count();
  if (threads == current) {
    return;
  }
  if (pool_uses > 0) {
    throw Failure(Error::InvalidState, "threads=" + std::to_string(threads) + " asked, but " +
                                           std::to_string(pool_uses) + " methods are loaded with threads=" +
                                           std::to_string(current) + "; unload them first");
  }
  if (!pool()._unsafe_reset_threadpool(threads) || thread_count() != threads) {
    throw Failure(Error::OutOfResources,
                  "ExecuTorch could not start a pool of " + std::to_string(threads) + " threads");
  }
}

void set_cores(const std::vector<uint32_t>& cores) {
  const std::lock_guard<std::mutex> lock(pool_mutex);
  if (cores == pool_cores) {
    return;
  }
  if (pool_uses > 0) {
    throw Failure(Error::InvalidState,
                  std::to_string(pool_uses) + " models are loaded on other cores; unload them first");
  }
  if (const int error = pin_threads(cores.data(), cores.size())) {
    throw Failure(Error::NotSupported,
                  "the system does not allow these cores (errno " + std::to_string(error) + "); choose others");
  }
  pool_cores = cores;
}

PoolUse::PoolUse() {
  const std::lock_guard<std::mutex> lock(pool_mutex);
  ++pool_uses;
}

PoolUse::~PoolUse() {
  const std::lock_guard<std::mutex> lock(pool_mutex);
  --pool_uses;
}

}  // namespace blocktime
