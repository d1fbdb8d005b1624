#pragma once

#include "program_file.h"
#include "runtime.h"

#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>

#include <cstdint>
#include <string>
#include <vector>

namespace blocktime {

/// A method ready to execute, with its memory. The ProgramFile must outlive it. For one thread at a time.
class LoadedMethod {
 public:
  /// Throws Failure where a kernel or backend is missing or refuses, or memory runs out.
  LoadedMethod(const ProgramFile& file, const std::string& name, const MethodSpec& spec);

  LoadedMethod(const LoadedMethod&) = delete;
  LoadedMethod& operator=(const LoadedMethod&) = delete;

  /// Remembers an input's memory: row-major, as large as its spec says, valid until it is bound
  /// again or this object is destroyed.
  void bind_input(size_t index, const void* data, size_t nbytes);

  /// The same of a tensor with a type and shape of its own, which set_inputs() compares with the method's.
  void bind_input(size_t index, executorch::extension::TensorPtr tensor);

  /// Sets the bound inputs. Needed before every execute(): inputs lie in the planned memory that an
  /// execution overwrites.
  void set_inputs();

  /// What is timed.
  executorch::runtime::Error execute() { return method_.execute(); }

  /// Copies an output's nbytes, which must be what its spec says.
  void read_output(size_t index, void* data, size_t nbytes) const;

  const executorch::runtime::Method& method() const { return method_; }

 private:
  using Buffers = std::vector<std::vector<uint8_t>>;

  PoolUse pool_use_;
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
  Buffers planned_;
  std::vector<executorch::runtime::Span<uint8_t>> planned_spans_;
  executorch::runtime::HierarchicalAllocator planned_allocator_;
  executorch::extension::MallocMemoryAllocator method_allocator_;
  executorch::extension::MallocMemoryAllocator temp_allocator_;
  executorch::runtime::MemoryManager memory_;
  std::vector<executorch::extension::TensorPtr> bound_;
  // Refers to all of the memory above, so it must go first.
  executorch::runtime::Method method_;
};

}  // namespace blocktime
