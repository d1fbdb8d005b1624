#include "program_file.h"

#include "error.h"
#include "runtime.h"

#include <executorch/extension/data_loader/file_data_loader.h>
#include <executorch/extension/data_loader/mmap_data_loader.h>

#include <cstdint>
#include <utility>

namespace blocktime {
namespace {

using executorch::aten::ScalarType;
using executorch::extension::FileDataLoader;
using executorch::extension::MmapDataLoader;
using executorch::runtime::DataLoader;
using executorch::runtime::MethodMeta;
using executorch::runtime::Program;
using executorch::runtime::Result;
using executorch::runtime::Tag;
using executorch::runtime::TensorInfo;

std::unique_ptr<DataLoader> open_file(const std::string& path, LoadMode mode) {
  const std::string what = "cannot read the model";
  switch (mode) {
    case LoadMode::file:
      return std::make_unique<FileDataLoader>(take(FileDataLoader::from(path.c_str()), what));
    case LoadMode::mapped:
      return std::make_unique<MmapDataLoader>(
          take(MmapDataLoader::from(path.c_str(), MmapDataLoader::MlockConfig::NoMlock), what));
    case LoadMode::mapped_and_locked:
      return std::make_unique<MmapDataLoader>(
          take(MmapDataLoader::from(path.c_str(), MmapDataLoader::MlockConfig::UseMlock), what));
    case LoadMode::mapped_and_locked_if_possible:
      return std::make_unique<MmapDataLoader>(
          take(MmapDataLoader::from(path.c_str(), MmapDataLoader::MlockConfig::UseMlockIgnoreErrors), what));
  }
  throw Failure(Error::InvalidArgument, "unknown load mode");
}

bool is_row_major(const TensorInfo& info) {
  const auto order = info.dim_order();
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] != i) {
      return false;
    }
  }
  return true;
}

TensorSpec tensor_spec(const Result<Tag>& tag, const Result<TensorInfo>& info, const std::string& which) {
  check(tag.error(), "cannot read " + which);
  if (tag.get() != Tag::Tensor) {
    throw Failure(Error::NotSupported, which + " is not a tensor; export a model of tensors only");
  }
  check(info.error(), "cannot read " + which);
  const char* const dtype = dtype_name(info->scalar_type());
  if (dtype == nullptr) {
    const int code = static_cast<int>(info->scalar_type());
    throw Failure(Error::NotSupported, which + " has ExecuTorch's type " + std::to_string(code) +
                                           ", which the protocol does not have; export another type");
  }
  if (!is_row_major(*info)) {
    throw Failure(Error::NotSupported, which + " is not row-major; export it in the contiguous format");
  }
  const auto sizes = info->sizes();
  return {info->scalar_type(), dtype, {sizes.begin(), sizes.end()}, info->nbytes()};
}

/// ExecuTorch 1.5.1 does not check that a delegate has a name: it then gives an address a few bytes above null.
std::string backend_name(const MethodMeta& meta, size_t index) {
  constexpr uintptr_t kFirstPageBytes = 4096;
  const char* const name = take(meta.get_backend_name(index), "cannot read the delegates");
  if (reinterpret_cast<uintptr_t>(name) < kFirstPageBytes) {
    throw Failure(Error::InvalidProgram, "a delegate has no name");
  }
  return printable(name);
}

std::map<std::string, size_t> delegates_of(const MethodMeta& meta) {
  std::map<std::string, size_t> delegates;
  for (size_t i = 0; i < meta.num_backends(); ++i) {
    ++delegates[backend_name(meta, i)];
  }
  return delegates;
}

}  // namespace

const char* dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Bool:
      return "bool";
    default:
      return nullptr;
  }
}

ProgramFile::ProgramFile(const std::string& path, LoadMode mode) {
  start_runtime();
  loader_ = open_file(path, mode);
  program_ = std::make_unique<Program>(
      take(Program::load(loader_.get(), Program::Verification::InternalConsistency),
           "the model is damaged or not a .pte"));
}

std::vector<std::string> ProgramFile::method_names() const {
  std::vector<std::string> names;
  for (size_t i = 0; i < program_->num_methods(); ++i) {
    names.push_back(printable(take(program_->get_method_name(i), "cannot read the methods")));
  }
  return names;
}

MethodSpec ProgramFile::method_spec(const std::string& name) const {
  const MethodMeta meta = take(program_->method_meta(name.c_str()), "no method " + name);
  MethodSpec spec;
  for (size_t i = 0; i < meta.num_inputs(); ++i) {
    const std::string which = "input " + std::to_string(i);
    spec.inputs.push_back(tensor_spec(meta.input_tag(i), meta.input_tensor_meta(i), which));
  }
  for (size_t i = 0; i < meta.num_outputs(); ++i) {
    const std::string which = "output " + std::to_string(i);
    const Result<TensorInfo> info = meta.output_tensor_meta(i);
    spec.outputs.push_back(tensor_spec(meta.output_tag(i), info, which));
    if (!info->is_memory_planned()) {
      throw Failure(Error::NotSupported, which + " has no planned memory; export with alloc_graph_output");
    }
  }
  for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
    const int64_t nbytes = take(meta.memory_planned_buffer_size(i), "cannot read the memory plan");
    if (nbytes < 0) {
      throw Failure(Error::InvalidProgram, "the memory plan has a buffer of negative size");
    }
    spec.planned_bytes.push_back(static_cast<size_t>(nbytes));
  }
  spec.delegates = delegates_of(meta);
  return spec;
}

std::vector<std::string> ProgramFile::backends(const std::string& method) const {
  std::vector<std::string> names;
  for (const auto& delegate : delegates_of(take(program_->method_meta(method.c_str()), "no method " + method))) {
    names.push_back(delegate.first);
  }
  return names;
}

}  // namespace blocktime
