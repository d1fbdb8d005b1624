// The bare lower bound that agents are compared with: ExecuTorch, a clock and nothing between.
//
// Reads requests on stdin, a line each, and answers a line of JSON each:
//   load PATH THREADS       -> {"handle": 1, "load_ns": 123}      (no blanks in PATH)
//   run HANDLE N WARMUP     -> {"ns": [N latencies]} of executing alone
//   forward HANDLE N WARMUP -> the same of setting the inputs and executing, as ExecuTorch's Module::forward does
//   unload HANDLE           -> {"unloaded": 1}
// or {"error": "..."}. Ends with stdin.

#include "error.h"
#include "loaded_method.h"
#include "program_file.h"
#include "runtime.h"
#include "timing.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace {

using blocktime::Error;
using blocktime::Failure;
using blocktime::Timed;
using executorch::aten::ScalarType;
using Clock = std::chrono::steady_clock;

// The bounds of the wire protocol's `run`.
constexpr long kMaxRuns = 200'000;
constexpr long kMaxWarmup = 1'000;
constexpr uint32_t kInputSeed = 20240501;

template <typename T>
void fill_normal(std::vector<uint8_t>& bytes) {
  std::mt19937 generator(kInputSeed);
  std::normal_distribution<float> normal;
  for (size_t at = 0; at + sizeof(T) <= bytes.size(); at += sizeof(T)) {
    const T value = static_cast<T>(normal(generator));
    std::memcpy(bytes.data() + at, &value, sizeof(T));
  }
}

/// Standard normal floats, zeros of any other type: as agents make them.
std::vector<uint8_t> make_input(const blocktime::TensorSpec& spec) {
  std::vector<uint8_t> bytes(spec.nbytes);
  if (spec.type == ScalarType::Float) {
    fill_normal<float>(bytes);
  } else if (spec.type == ScalarType::Double) {
    fill_normal<double>(bytes);
  } else if (spec.type == ScalarType::Half) {
    fill_normal<executorch::aten::Half>(bytes);
  }
  return bytes;
}

struct Model {
  explicit Model(const std::string& path)
      : file(path), spec(file.method_spec("forward")), method(file, "forward", spec) {
    for (size_t i = 0; i < spec.inputs.size(); ++i) {
      inputs.push_back(make_input(spec.inputs[i]));
      method.bind_input(i, inputs.back().data(), inputs.back().size());
    }
  }

  blocktime::ProgramFile file;
  blocktime::MethodSpec spec;
  std::vector<std::vector<uint8_t>> inputs;
  blocktime::LoadedMethod method;
};

int64_t nanoseconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

std::vector<uint64_t> time_runs(blocktime::LoadedMethod& method, Timed timed, long runs, long warmup) {
  std::vector<uint64_t> latencies_ns(static_cast<size_t>(runs));
  for (long i = 0; i < warmup; ++i) {
    blocktime::time_execution(method, timed);
  }
  for (uint64_t& latency_ns : latencies_ns) {
    latency_ns = blocktime::time_execution(method, timed);
  }
  return latencies_ns;
}

std::string quoted(const std::string& text) {
  std::string json = "\"";
  for (const char c : text) {
    char escape[8];
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7e || c == '"' || c == '\\') {
      std::snprintf(escape, sizeof escape, "\\u%04x", byte);
      json += escape;
    } else {
      json += c;
    }
  }
  return json + '"';
}

class Bench {
 public:
  std::string answer(const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    if (verb == "load") {
      const std::string path = parse<std::string>(words);
      return load(path, parse<uint32_t>(words));
    }
    if (verb == "run" || verb == "forward") {
      const long handle = parse<long>(words);
      const long runs = parse<long>(words);
      return run(handle, verb == "run" ? Timed::execute : Timed::forward, runs, parse<long>(words));
    }
    if (verb == "unload") {
      return unload(parse<long>(words));
    }
    throw Failure(Error::InvalidArgument, "ask load PATH THREADS, run or forward HANDLE N WARMUP, or unload HANDLE");
  }

 private:
  template <typename T>
  static T parse(std::istringstream& words) {
    T value;
    if (!(words >> value)) {
      throw Failure(Error::InvalidArgument, "a word of the request is missing or not a number");
    }
    return value;
  }

  std::string load(const std::string& path, uint32_t threads) {
    blocktime::set_thread_count(threads);
    const auto start = Clock::now();
    auto model = std::make_unique<Model>(path);
    const int64_t load_ns = nanoseconds(Clock::now() - start);
    models_[++last_handle_] = std::move(model);
    return "{\"handle\": " + std::to_string(last_handle_) + ", \"load_ns\": " + std::to_string(load_ns) + "}";
  }

  std::string run(long handle, Timed timed, long runs, long warmup) {
    if (runs < 1 || runs > kMaxRuns || warmup < 0 || warmup > kMaxWarmup) {
      throw Failure(Error::InvalidArgument, "at most 200000 runs and 1000 warm-up runs");
    }
    std::string json = "{\"ns\": [";
    const char* separator = "";
    for (const uint64_t latency_ns : time_runs(find(handle)->second->method, timed, runs, warmup)) {
      json += separator + std::to_string(latency_ns);
      separator = ", ";
    }
    return json + "]}";
  }

  std::string unload(long handle) {
    models_.erase(find(handle));
    return "{\"unloaded\": " + std::to_string(handle) + "}";
  }

  using Models = std::map<long, std::unique_ptr<Model>>;

  Models::iterator find(long handle) {
    const auto found = models_.find(handle);
    if (found == models_.end()) {
      throw Failure(Error::InvalidArgument, "no handle " + std::to_string(handle));
    }
    return found;
  }

  Models models_;
  long last_handle_ = 0;
};

}  // namespace

int main() {
  Bench bench;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::string reply;
    try {
      blocktime::start_runtime();
      blocktime::forget_log();
      reply = bench.answer(line);
    } catch (...) {
      reply = "{\"error\": " + quoted(blocktime::describe_current_exception().text) + "}";
    }
    std::cout << reply << std::endl;
  }
}
