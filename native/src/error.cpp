#include "error.h"

#include <executorch/runtime/platform/platform.h>

#include <algorithm>
#include <cstdio>
#include <new>

namespace blocktime {
namespace {

constexpr size_t kLogLineBytes = 512;
constexpr size_t kNameBytes = 256;

char printable_or_mark(char c) { return c >= ' ' && c <= '~' ? c : '?'; }

// A fixed buffer: a log line may be about memory that could not be allocated.
thread_local char last_log_line[kLogLineBytes] = "";

void emit_log_message(et_timestamp_t, et_pal_log_level_t level, const char* file, const char*, size_t line,
                      const char* message, size_t length) {
  if (level != kError && level != kFatal) {
    return;
  }
  const size_t kept = std::min(length, kLogLineBytes - 1);
  std::transform(message, message + kept, last_log_line, printable_or_mark);
  last_log_line[kept] = '\0';
  std::fprintf(stderr, "executorch %s:%zu: %s\n", file, line, last_log_line);
}

}  // namespace

Failure::Failure(Error code, const std::string& text) : std::runtime_error(text), code_(code) {}

std::string printable(std::string_view text) {
  std::string clean(text.substr(0, kNameBytes));
  std::transform(clean.begin(), clean.end(), clean.begin(), printable_or_mark);
  return clean;
}

void fail(Error code, std::string_view what) {
  const char* const name = executorch::runtime::to_string(code);
  char number[16];
  std::snprintf(number, sizeof number, " (0x%02x)", static_cast<unsigned>(code));
  std::string text = std::string(what) + ": " + name + number;
  if (last_log_line[0] != '\0') {
    text += std::string(": ") + last_log_line;
  }
  throw Failure(code, text);
}

void capture_log() {
  static const bool registered =
      executorch::runtime::register_pal(executorch::runtime::PalImpl::create(emit_log_message, __FILE__));
  static_cast<void>(registered);
}

void forget_log() { last_log_line[0] = '\0'; }

Caught describe_current_exception() noexcept {
  try {
    try {
      throw;
    } catch (const Failure& failure) {
      return {failure.code(), failure.what()};
    } catch (const std::bad_alloc&) {
      return {Error::MemoryAllocationFailed, "out of memory"};
    } catch (const std::length_error&) {
      return {Error::MemoryAllocationFailed, "the program asks for more memory than can exist"};
    } catch (const std::exception& error) {
      return {Error::Internal, error.what()};
    } catch (...) {
      return {Error::Internal, "unknown exception"};
    }
  } catch (...) {
    return {Error::MemoryAllocationFailed, std::string()};
  }
}

}  // namespace blocktime
