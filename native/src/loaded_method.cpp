#include "loaded_method.h"

#include "error.h"

#include <cstring>
#include <utility>

namespace blocktime {
namespace {

using executorch::runtime::EValue;
using executorch::runtime::Span;

std::vector<std::vector<uint8_t>> allocate(const std::vector<size_t>& sizes) {
  std::vector<std::vector<uint8_t>> buffers;
  for (const size_t nbytes : sizes) {
    buffers.emplace_back(nbytes);
  }
  return buffers;
}

std::vector<Span<uint8_t>> spans_of(std::vector<std::vector<uint8_t>>& buffers) {
  std::vector<Span<uint8_t>> spans;
  for (auto& buffer : buffers) {
    spans.emplace_back(buffer.data(), buffer.size());
  }
  return spans;
}

std::string sizes_differ(const std::string& which, size_t index, size_t expected, size_t got) {
  return which + " " + std::to_string(index) + " has " + std::to_string(expected) + " bytes, got " +
         std::to_string(got);
}

}  // namespace

LoadedMethod::LoadedMethod(const ProgramFile& file, const std::string& name, const MethodSpec& spec)
    : inputs_(spec.inputs),
      outputs_(spec.outputs),
      planned_(allocate(spec.planned_bytes)),
      planned_spans_(spans_of(planned_)),
      planned_allocator_({planned_spans_.data(), planned_spans_.size()}),
      memory_(&method_allocator_, &planned_allocator_, &temp_allocator_),
      bound_(spec.inputs.size()),
      method_(take(file.program().load_method(name.c_str(), &memory_), "cannot load method " + name)) {}

void LoadedMethod::bind_input(size_t index, const void* data, size_t nbytes) {
  if (index >= inputs_.size()) {
    throw Failure(Error::InvalidArgument, "no input " + std::to_string(index));
  }
  const TensorSpec& spec = inputs_[index];
  if (nbytes != spec.nbytes || (data == nullptr && nbytes > 0)) {
    throw Failure(Error::InvalidArgument, sizes_differ("input", index, spec.nbytes, data ? nbytes : 0));
  }
  // ExecuTorch reads inputs through tensors of mutable data.
  bound_[index] = executorch::extension::from_blob(const_cast<void*>(data), spec.shape, spec.type);
}

void LoadedMethod::bind_input(size_t index, executorch::extension::TensorPtr tensor) {
  bound_.at(index) = std::move(tensor);
}

void LoadedMethod::set_inputs() {
  for (size_t i = 0; i < bound_.size(); ++i) {
    if (bound_[i] == nullptr) {
      throw Failure(Error::InvalidState, "input " + std::to_string(i) + " was not bound");
    }
    check(method_.set_input(EValue(*bound_[i]), i), "cannot set an input");
  }
}

void LoadedMethod::read_output(size_t index, void* data, size_t nbytes) const {
  if (index >= outputs_.size()) {
    throw Failure(Error::InvalidArgument, "no output " + std::to_string(index));
  }
  const EValue& output = method_.get_output(index);
  if (!output.isTensor()) {
    throw Failure(Error::InvalidProgram, "output " + std::to_string(index) + " is not a tensor");
  }
  const auto& tensor = output.toTensor();
  if (nbytes != tensor.nbytes() || (data == nullptr && nbytes > 0)) {
    throw Failure(Error::InvalidArgument, sizes_differ("output", index, tensor.nbytes(), data ? nbytes : 0));
  }
  if (nbytes > 0) {
    std::memcpy(data, tensor.const_data_ptr(), nbytes);
  }
}

}  // namespace blocktime
