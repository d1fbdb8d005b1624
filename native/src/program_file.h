#pragma once

#include <executorch/runtime/core/data_loader.h>
#include <executorch/runtime/executor/program.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace blocktime {

enum class LoadMode { file, mapped, mapped_and_locked, mapped_and_locked_if_possible };

/// Type and row-major shape of an input or output.
struct TensorSpec {
  executorch::aten::ScalarType type;
  const char* dtype;  ///< name in the wire protocol; static storage
  std::vector<int32_t> shape;
  size_t nbytes;
};

/// What a method takes, gives and needs, known without preparing it.
struct MethodSpec {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  std::map<std::string, size_t> delegates;  ///< parts of the method that each backend took
  std::vector<size_t> planned_bytes;        ///< one a buffer of activations
};

/// A .pte that passed ExecuTorch's verification; outlives the methods loaded from it.
class ProgramFile {
 public:
  /// Throws Failure where the file can't be read, is damaged or is not a program.
  explicit ProgramFile(const std::string& path, LoadMode mode = LoadMode::mapped);

  std::vector<std::string> method_names() const;

  /// Throws Failure(NotSupported) where an input or output is not a row-major tensor of a type that the wire
  /// protocol has, or an output has no memory of its own in the plan.
  MethodSpec method_spec(const std::string& name) const;

  /// Backends that took parts of a method, each once.
  std::vector<std::string> backends(const std::string& method) const;

  const executorch::runtime::Program& program() const { return *program_; }

 private:
  std::unique_ptr<executorch::runtime::DataLoader> loader_;
  std::unique_ptr<executorch::runtime::Program> program_;
};

/// Name of an ExecuTorch type in the wire protocol, null where it has none.
const char* dtype_name(executorch::aten::ScalarType type);

}  // namespace blocktime
