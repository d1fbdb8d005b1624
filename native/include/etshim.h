/* Plain C over ExecuTorch: load a .pte, describe it, set its inputs, execute it, read its outputs.
 *
 * Functions that can fail return 0, or ExecuTorch's error code (runtime/core/error.h) with a text in
 * et_last_error(). No exception leaves this library. Nothing is locked around models: use them from one thread
 * at a time. Languages that get to et_execute() in no time read the clock around it themselves; et_time_visits()
 * is for those that don't.
 */
#ifndef BLOCKTIME_ETSHIM_H
#define BLOCKTIME_ETSHIM_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ET_SHIM_API __attribute__((visibility("default")))
#else
#define ET_SHIM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ET_MAX_RANK 16

/* Codes that a caller may want to tell apart; every other non-zero code is an error too. */
enum {
  ET_OK = 0x00,
  ET_INVALID_STATE = 0x02,
  ET_NOT_SUPPORTED = 0x10,
  ET_INVALID_ARGUMENT = 0x12,
  ET_MEMORY_ALLOCATION_FAILED = 0x21,
  ET_OUT_OF_RESOURCES = 0x25,
  ET_DELEGATE_MEMORY_ALLOCATION_FAILED = 0x31
};

typedef struct et_model et_model;

typedef struct et_tensor_spec {
  const char* dtype; /* "float32", "int64", ... as in the wire protocol; static storage */
  size_t rank;
  int64_t shape[ET_MAX_RANK];
  size_t nbytes;
} et_tensor_spec;

typedef struct et_delegate {
  const char* backend; /* lives as long as the model */
  size_t count;        /* parts of the method that this backend took */
} et_delegate;

/* A digest of the sources of this library. */
ET_SHIM_API const char* et_shim_version(void);

/* Why the last failing call of this thread failed, one line; valid until this thread's next call. */
ET_SHIM_API const char* et_last_error(void);

ET_SHIM_API const char* et_runtime_version(void);

/* Backends that are registered and available. */
ET_SHIM_API size_t et_num_backends(void);
ET_SHIM_API const char* et_backend_name(size_t index); /* NULL beyond the last */

/* Threads of the one pool of this process. A loaded model is bound to the pool that it was loaded with, and
 * a change frees that pool: et_set_threads() to another number fails with ET_INVALID_STATE while a method is
 * loaded. */
ET_SHIM_API uint32_t et_get_threads(void);
ET_SHIM_API int32_t et_set_threads(uint32_t threads);

/* Lets all threads of this process, and those that they will start, run on some cores alone. Fails with
 * ET_INVALID_STATE where a method is loaded with others, ET_NOT_SUPPORTED where the system does not give them. */
ET_SHIM_API int32_t et_pin_threads(const uint32_t* cores, size_t count);

/* Maps the file and verifies it; nothing is allocated for the method `forward` yet. *model is NULL on failure. */
ET_SHIM_API int32_t et_open(const char* path, et_model** model);

/* Bytes of activations that et_load() will allocate: compare it with the free memory first. */
ET_SHIM_API uint64_t et_planned_bytes(const et_model* model);

/* Prepares `forward` for execution with the threads now set. At most once a model. */
ET_SHIM_API int32_t et_load(et_model* model);

/* What `forward` takes, gives and delegates; known once the model is open. */
ET_SHIM_API size_t et_num_inputs(const et_model* model);
ET_SHIM_API size_t et_num_outputs(const et_model* model);
ET_SHIM_API size_t et_num_delegates(const et_model* model); /* different backends */
ET_SHIM_API int32_t et_input_spec(const et_model* model, size_t index, et_tensor_spec* spec);
ET_SHIM_API int32_t et_output_spec(const et_model* model, size_t index, et_tensor_spec* spec);
ET_SHIM_API int32_t et_get_delegate(const et_model* model, size_t index, et_delegate* delegate);

/* Remembers an input's memory (row-major, nbytes as in its spec). The memory is the caller's and must
 * stay until another is bound or the model is closed: models without planned input memory execute on it. */
ET_SHIM_API int32_t et_bind_input(et_model* model, size_t index, const void* data, size_t nbytes);

/* Sets the bound inputs. Do so before *every* et_execute(), outside the timed part: executing may overwrite
 * the inputs, whose memory the plan reuses. */
ET_SHIM_API int32_t et_set_inputs(et_model* model);

/* The call to time: runs `forward` and nothing else. */
ET_SHIM_API int32_t et_execute(et_model* model);

/* Visits models in turn, each loaded and with its inputs bound: sets the inputs, reads a monotonic clock, executes,
 * reads the clock. Between two visits is nothing but the setting of inputs. latencies_ns has room for `count`. Ends
 * at the first failure. */
ET_SHIM_API int32_t et_time_visits(et_model* const* models, size_t count, uint64_t* latencies_ns);

/* Copies an output, row-major; nbytes must be that of its spec. */
ET_SHIM_API int32_t et_read_output(const et_model* model, size_t index, void* data, size_t nbytes);

/* Frees the model; NULL is allowed. */
ET_SHIM_API void et_close(et_model* model);

#ifdef __cplusplus
}
#endif

#endif
