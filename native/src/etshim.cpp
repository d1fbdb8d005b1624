#include "etshim.h"

#include "error.h"
#include "loaded_method.h"
#include "program_file.h"
#include "runtime.h"
#include "timing.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <new>
#include <string>

using blocktime::Error;
using blocktime::Failure;

struct et_model {
  explicit et_model(const char* path) : file(path), spec(file.method_spec("forward")) {}

  blocktime::LoadedMethod& loaded() const {
    if (method == nullptr) {
      throw Failure(Error::InvalidState, "the model is not loaded; call et_load first");
    }
    return *method;
  }

  blocktime::ProgramFile file;
  blocktime::MethodSpec spec;
  std::unique_ptr<blocktime::LoadedMethod> method;
};

namespace {

thread_local std::string last_error;

/// Runs `body`, turning whatever it throws into a code and a text.
template <typename Body>
int32_t guarded(Body&& body) noexcept {
  try {
    blocktime::forget_log();
    body();
    return ET_OK;
  } catch (...) {
    blocktime::Caught caught = blocktime::describe_current_exception();
    last_error = std::move(caught.text);
    return static_cast<int32_t>(caught.code);
  }
}

void require(bool holds, const char* text) {
  if (!holds) {
    throw Failure(Error::InvalidArgument, text);
  }
}

int32_t copy_spec(const std::vector<blocktime::TensorSpec>& specs, size_t index, et_tensor_spec* out) noexcept {
  return guarded([&] {
    require(out != nullptr && index < specs.size(), "no such input or output");
    const blocktime::TensorSpec& spec = specs[index];
    require(spec.shape.size() <= ET_MAX_RANK, "a tensor of more than 16 dimensions");
    *out = {};
    out->dtype = spec.dtype;
    out->rank = spec.shape.size();
    std::copy(spec.shape.begin(), spec.shape.end(), out->shape);
    out->nbytes = spec.nbytes;
  });
}

const std::vector<std::string>& backends() {
  static const std::vector<std::string> names = [] {
    blocktime::start_runtime();
    return blocktime::available_backends();
  }();
  return names;
}

}  // namespace

const char* et_shim_version(void) { return SHIM_VERSION; }

const char* et_last_error(void) { return last_error.c_str(); }

const char* et_runtime_version(void) { return blocktime::runtime_version(); }

size_t et_num_backends(void) {
  size_t count = 0;
  guarded([&] { count = backends().size(); });
  return count;
}

const char* et_backend_name(size_t index) {
  const char* name = nullptr;
  guarded([&] { name = index < backends().size() ? backends()[index].c_str() : nullptr; });
  return name;
}

uint32_t et_get_threads(void) {
  uint32_t threads = 0;
  guarded([&] { threads = blocktime::thread_count(); });
  return threads;
}

int32_t et_set_threads(uint32_t threads) {
  return guarded([&] { blocktime::set_thread_count(threads); });
}

int32_t et_pin_threads(const uint32_t* cores, size_t count) {
  return guarded([&] {
    require(cores != nullptr && count > 0, "no cores");
    blocktime::set_cores({cores, cores + count});
  });
}

int32_t et_open(const char* path, et_model** model) {
  return guarded([&] {
    require(model != nullptr, "nowhere to put the model");
    *model = nullptr;
    require(path != nullptr, "no path");
    *model = std::make_unique<et_model>(path).release();
  });
}

uint64_t et_planned_bytes(const et_model* model) {
  uint64_t total = 0;
  for (const size_t nbytes : model->spec.planned_bytes) {
    total = nbytes > UINT64_MAX - total ? UINT64_MAX : total + nbytes;
  }
  return total;
}

int32_t et_load(et_model* model) {
  return guarded([&] {
    if (model->method != nullptr) {
      throw Failure(Error::InvalidState, "the model is loaded already");
    }
    model->method = std::make_unique<blocktime::LoadedMethod>(model->file, "forward", model->spec);
  });
}

size_t et_num_inputs(const et_model* model) { return model->spec.inputs.size(); }

size_t et_num_outputs(const et_model* model) { return model->spec.outputs.size(); }

size_t et_num_delegates(const et_model* model) { return model->spec.delegates.size(); }

int32_t et_input_spec(const et_model* model, size_t index, et_tensor_spec* spec) {
  return copy_spec(model->spec.inputs, index, spec);
}

int32_t et_output_spec(const et_model* model, size_t index, et_tensor_spec* spec) {
  return copy_spec(model->spec.outputs, index, spec);
}

int32_t et_get_delegate(const et_model* model, size_t index, et_delegate* delegate) {
  return guarded([&] {
    const auto& delegates = model->spec.delegates;
    require(delegate != nullptr && index < delegates.size(), "no such delegate");
    const auto found = std::next(delegates.begin(), static_cast<std::ptrdiff_t>(index));
    *delegate = {found->first.c_str(), found->second};
  });
}

int32_t et_bind_input(et_model* model, size_t index, const void* data, size_t nbytes) {
  return guarded([&] { model->loaded().bind_input(index, data, nbytes); });
}

int32_t et_set_inputs(et_model* model) {
  return guarded([&] { model->loaded().set_inputs(); });
}

int32_t et_execute(et_model* model) {
  return guarded([&] { blocktime::check(model->loaded().execute(), "the runtime failed to execute"); });
}

int32_t et_time_visits(et_model* const* models, size_t count, uint64_t* latencies_ns) {
  return guarded([&] {
    require(count == 0 || (models != nullptr && latencies_ns != nullptr), "no models or no place for their latencies");
    for (size_t i = 0; i < count; ++i) {
      latencies_ns[i] = blocktime::time_execution(models[i]->loaded(), blocktime::Timed::execute);
    }
  });
}

int32_t et_read_output(const et_model* model, size_t index, void* data, size_t nbytes) {
  return guarded([&] { model->loaded().read_output(index, data, nbytes); });
}

void et_close(et_model* model) { delete model; }
