#pragma once

#include <executorch/runtime/core/error.h>
#include <executorch/runtime/core/result.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace blocktime {

using executorch::runtime::Error;

/// A failure with ExecuTorch's code; what() is one line for people. Stays inside this library.
class Failure : public std::runtime_error {
 public:
  Failure(Error code, const std::string& text);
  Error code() const noexcept { return code_; }

 private:
  Error code_;
};

/// `text`, which may come from a hostile file, as at most 256 characters of printable ASCII.
std::string printable(std::string_view text);

/// Throws Failure "<what>: <name of the error> (0x..)[: <ExecuTorch's last log line of this thread>]".
[[noreturn]] void fail(Error code, std::string_view what);

/// Allocates nothing where `code` is Ok: it lies within timed calls.
inline void check(Error code, std::string_view what) {
  if (code != Error::Ok) {
    fail(code, what);
  }
}

template <typename T>
T take(executorch::runtime::Result<T>&& result, std::string_view what) {
  check(result.error(), what);
  return std::move(result.get());
}

/// From here on ExecuTorch's log lines go to stderr and into the text of the Failure that follows them.
void capture_log();

/// Forgets this thread's log lines, so that a later failure is not explained by an earlier one's.
void forget_log();

/// The code and text of the exception now being handled; to be called in a catch block only.
struct Caught {
  Error code;
  std::string text;
};
Caught describe_current_exception() noexcept;

}  // namespace blocktime
