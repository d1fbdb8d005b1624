// Built for Linux and for Android: nothing here may need ExecuTorch.

#include "affinity.h"

#include <dirent.h>
#include <sched.h>

#include <cerrno>
#include <cstdlib>

namespace blocktime {

int pin_threads(const uint32_t* cores, size_t count) noexcept {
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  for (size_t i = 0; i < count; ++i) {
    if (cores[i] >= CPU_SETSIZE) {
      return EINVAL;
    }
    CPU_SET(cores[i], &wanted);
  }
  DIR* const tasks = opendir("/proc/self/task");
  if (tasks == nullptr) {
    return errno;
  }
  int failure = 0;
  while (const dirent* const task = readdir(tasks)) {
    const auto id = static_cast<pid_t>(std::strtol(task->d_name, nullptr, 10));
    // A thread that has just ended is none to pin.
    if (id > 0 && sched_setaffinity(id, sizeof wanted, &wanted) != 0 && errno != ESRCH) {
      failure = errno;
    }
  }
  closedir(tasks);
  cpu_set_t given;
  CPU_ZERO(&given);
  if (failure == 0 && sched_getaffinity(0, sizeof given, &given) != 0) {
    failure = errno;
  }
  return failure != 0 ? failure : CPU_EQUAL(&wanted, &given) ? 0 : EPERM;
}

}  // namespace blocktime
