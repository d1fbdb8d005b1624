// The native half of android_bench/standin: does what ExecuTorch's own Android binding does, on Linux.

#include "error.h"
#include "loaded_method.h"
#include "program_file.h"
#include "runtime.h"

#include <jni.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using blocktime::Error;
using blocktime::Failure;
using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::extension::TensorPtr;
using executorch::runtime::EValue;

// ExecuTorch's own bound.
constexpr jsize kMaxRank = 16;

/// Thrown where a Java exception is already pending.
struct JavaPending {};

struct JavaIds {
  jclass evalue;
  jclass string;
  jclass error;
  jfieldID evalue_tensor;
  jmethodID evalue_on_output;
  jfieldID tensor_data;
  jfieldID tensor_shape;
  jfieldID tensor_jni_code;
  jmethodID error_new;
};

JavaIds ids;

/// What an output looked like when it was wrapped.
struct OutputView {
  explicit OutputView(const Tensor& tensor)
      : data(tensor.const_data_ptr()), shape(tensor.sizes().begin(), tensor.sizes().end()) {}

  bool shows(const Tensor& tensor) const {
    const auto sizes = tensor.sizes();
    return data == tensor.const_data_ptr() && std::equal(shape.begin(), shape.end(), sizes.begin(), sizes.end());
  }

  const void* data;
  std::vector<int32_t> shape;
};

/// What a Java Module.Method stands for.
struct NativeMethod {
  NativeMethod(const blocktime::ProgramFile& file, const std::string& name)
      : loaded(file, name, file.method_spec(name)) {}

  blocktime::LoadedMethod loaded;
  std::vector<OutputView> wrapped;
};

/// What a Java Module stands for.
struct NativeModule {
  NativeModule(const std::string& path, blocktime::LoadMode mode) : file(path, mode) {}

  NativeMethod& load(const std::string& name) {
    auto& method = methods[name];
    if (method == nullptr) {
      method = std::make_unique<NativeMethod>(file, name);
    }
    return *method;
  }

  blocktime::ProgramFile file;
  std::map<std::string, std::unique_ptr<NativeMethod>> methods;
};

void throw_to_java(JNIEnv* env) {
  if (env->ExceptionCheck()) {
    return;
  }
  const blocktime::Caught caught = blocktime::describe_current_exception();
  jstring text = env->NewStringUTF(caught.text.c_str());
  if (text == nullptr) {
    return;
  }
  const auto code = static_cast<jint>(caught.code);
  if (auto error = static_cast<jthrowable>(env->NewObject(ids.error, ids.error_new, code, text))) {
    env->Throw(error);
  }
}

template <typename Result, typename Body>
Result guarded(JNIEnv* env, Body&& body) noexcept {
  try {
    blocktime::forget_log();
    return body();
  } catch (const JavaPending&) {
  } catch (...) {
    throw_to_java(env);
  }
  return Result{};
}

void require_non_null(jobject object) {
  if (object == nullptr) {
    throw Failure(Error::InvalidArgument, "null where an object was expected");
  }
}

/// A local reference, freed at the end of its scope: loops would pile them up.
template <typename T>
class Local {
 public:
  /// Throws JavaPending where `value` is null because of a Java exception, Failure where it is just null.
  Local(JNIEnv* env, T value) : env_(env), value_(value) {
    if (env->ExceptionCheck()) {
      throw JavaPending();
    }
    require_non_null(value);
  }
  ~Local() { env_->DeleteLocalRef(value_); }
  Local(const Local&) = delete;
  Local& operator=(const Local&) = delete;

  T get() const { return value_; }
  T release() { return std::exchange(value_, nullptr); }

 private:
  JNIEnv* env_;
  T value_;
};

void require_no_exception(JNIEnv* env) {
  if (env->ExceptionCheck()) {
    throw JavaPending();
  }
}

template <typename Id>
Id found(JNIEnv* env, Id id) {
  require_no_exception(env);
  return id;
}

std::string to_string(JNIEnv* env, jstring text) {
  require_non_null(text);
  const jsize length = env->GetStringLength(text);
  std::string utf(static_cast<size_t>(env->GetStringUTFLength(text)) + 1, '\0');
  env->GetStringUTFRegion(text, 0, length, utf.data());
  require_no_exception(env);
  utf.pop_back();
  return utf;
}

jobjectArray to_java(JNIEnv* env, const std::vector<std::string>& strings) {
  Local<jobjectArray> array(env, env->NewObjectArray(static_cast<jsize>(strings.size()), ids.string, nullptr));
  for (size_t i = 0; i < strings.size(); ++i) {
    const Local<jstring> text(env, env->NewStringUTF(strings[i].c_str()));
    env->SetObjectArrayElement(array.get(), static_cast<jsize>(i), text.get());
    require_no_exception(env);
  }
  return array.release();
}

NativeModule& module_of(jlong handle) { return *reinterpret_cast<NativeModule*>(handle); }

NativeMethod& method_of(jlong handle) { return *reinterpret_cast<NativeMethod*>(handle); }

std::vector<int32_t> shape_of(JNIEnv* env, jobject tensor) {
  const Local<jlongArray> array(env, static_cast<jlongArray>(env->GetObjectField(tensor, ids.tensor_shape)));
  const jsize rank = env->GetArrayLength(array.get());
  if (rank > kMaxRank) {
    throw Failure(Error::InvalidArgument, "a tensor of more than 16 dimensions");
  }
  std::vector<jlong> sizes(static_cast<size_t>(rank));
  env->GetLongArrayRegion(array.get(), 0, rank, sizes.data());
  require_no_exception(env);
  std::vector<int32_t> shape;
  for (const jlong size : sizes) {
    if (size < 0 || size > INT32_MAX) {
      throw Failure(Error::InvalidArgument, "a tensor of size " + std::to_string(size));
    }
    shape.push_back(static_cast<int32_t>(size));
  }
  return shape;
}

/// A tensor on the Java tensor's own memory, which the caller keeps alive.
TensorPtr to_native(JNIEnv* env, jobject tensor) {
  // Tensor.java has compared capacity and shape, and lets none but direct buffers in.
  const Local<jobject> data(env, env->GetObjectField(tensor, ids.tensor_data));
  const auto type = static_cast<ScalarType>(env->GetIntField(tensor, ids.tensor_jni_code));
  return executorch::extension::from_blob(env->GetDirectBufferAddress(data.get()), shape_of(env, tensor), type);
}

/// A Java tensor on the native tensor's own memory, as in the real binding: valid until the next execution.
jobject to_java(JNIEnv* env, const Tensor& tensor) {
  const std::vector<jlong> sizes(tensor.sizes().begin(), tensor.sizes().end());
  const auto rank = static_cast<jsize>(sizes.size());
  const Local<jlongArray> shape(env, env->NewLongArray(rank));
  env->SetLongArrayRegion(shape.get(), 0, rank, sizes.data());
  const auto nbytes = static_cast<jlong>(tensor.nbytes());
  const Local<jobject> data(env, env->NewDirectByteBuffer(tensor.mutable_data_ptr(), nbytes));
  const auto type = static_cast<jint>(tensor.scalar_type());
  return Local<jobject>(env, env->CallStaticObjectMethod(ids.evalue, ids.evalue_on_output, data.get(),
                                                         shape.get(), type))
      .release();
}

const Tensor& output_of(const blocktime::LoadedMethod& loaded, size_t index) {
  const EValue& value = loaded.method().get_output(index);
  if (!value.isTensor()) {
    throw Failure(Error::NotSupported, "an output is not a tensor; export a model of tensors only");
  }
  return value.toTensor();
}

void bind(JNIEnv* env, blocktime::LoadedMethod& loaded, jobjectArray inputs) {
  require_non_null(inputs);
  const auto count = static_cast<size_t>(env->GetArrayLength(inputs));
  const size_t expected = loaded.method().inputs_size();
  if (count != expected) {
    throw Failure(Error::InvalidArgument, "the method takes " + std::to_string(expected) + " inputs, got " +
                                              std::to_string(count));
  }
  for (size_t i = 0; i < count; ++i) {
    const Local<jobject> value(env, env->GetObjectArrayElement(inputs, static_cast<jsize>(i)));
    const Local<jobject> tensor(env, env->GetObjectField(value.get(), ids.evalue_tensor));
    loaded.bind_input(i, to_native(env, tensor.get()));
  }
}

/// Whether the outputs lie where they lay when they were wrapped, with the same shapes.
bool execute(NativeMethod& method) {
  method.loaded.set_inputs();
  blocktime::check(method.loaded.execute(), "the runtime failed to execute");
  const size_t count = method.loaded.method().outputs_size();
  if (method.wrapped.size() != count) {
    return false;
  }
  for (size_t i = 0; i < count; ++i) {
    if (!method.wrapped[i].shows(output_of(method.loaded, i))) {
      return false;
    }
  }
  return true;
}

jobjectArray wrap_outputs(JNIEnv* env, NativeMethod& method) {
  const size_t count = method.loaded.method().outputs_size();
  Local<jobjectArray> results(env, env->NewObjectArray(static_cast<jsize>(count), ids.evalue, nullptr));
  std::vector<OutputView> wrapped;
  for (size_t i = 0; i < count; ++i) {
    const Tensor& tensor = output_of(method.loaded, i);
    const Local<jobject> output(env, to_java(env, tensor));
    env->SetObjectArrayElement(results.get(), static_cast<jsize>(i), output.get());
    require_no_exception(env);
    wrapped.emplace_back(tensor);
  }
  method.wrapped = std::move(wrapped);
  return results.release();
}

jclass find_class(JNIEnv* env, const char* name) {
  const Local<jclass> local(env, env->FindClass(name));
  return static_cast<jclass>(env->NewGlobalRef(local.get()));
}

void find_java(JNIEnv* env) {
  ids.evalue = find_class(env, "org/pytorch/executorch/EValue");
  ids.error = find_class(env, "org/pytorch/executorch/ExecutorchRuntimeException");
  ids.string = find_class(env, "java/lang/String");
  const Local<jclass> tensor(env, env->FindClass("org/pytorch/executorch/Tensor"));
  ids.evalue_tensor = found(env, env->GetFieldID(ids.evalue, "tensor", "Lorg/pytorch/executorch/Tensor;"));
  ids.evalue_on_output = found(env, env->GetStaticMethodID(ids.evalue, "onOutput",
                                                           "(Ljava/nio/ByteBuffer;[JI)"
                                                           "Lorg/pytorch/executorch/EValue;"));
  ids.tensor_data = found(env, env->GetFieldID(tensor.get(), "data", "Ljava/nio/Buffer;"));
  ids.tensor_shape = found(env, env->GetFieldID(tensor.get(), "shape", "[J"));
  ids.tensor_jni_code = found(env, env->GetFieldID(tensor.get(), "jniCode", "I"));
  ids.error_new = found(env, env->GetMethodID(ids.error, "<init>", "(ILjava/lang/String;)V"));
}

}  // namespace

#define ET_JNI(result, name) extern "C" JNIEXPORT result JNICALL Java_org_pytorch_executorch_##name

extern "C" JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM* vm, void*) {
  JNIEnv* env = nullptr;
  if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_8) != JNI_OK) {
    return JNI_ERR;
  }
  return guarded<jint>(env, [&] {
    find_java(env);
    blocktime::start_runtime();
    return JNI_VERSION_1_8;
  });
}

ET_JNI(jobjectArray, ExecuTorchRuntime_getRegisteredBackends)(JNIEnv* env, jclass) {
  return guarded<jobjectArray>(env, [&] { return to_java(env, blocktime::available_backends()); });
}

ET_JNI(jlong, Module_openNative)(JNIEnv* env, jclass, jstring path, jint mode, jint threads) {
  return guarded<jlong>(env, [&] {
    if (threads != 0) {
      blocktime::set_thread_count(static_cast<uint32_t>(threads));
    }
    auto module = std::make_unique<NativeModule>(to_string(env, path), static_cast<blocktime::LoadMode>(mode));
    return reinterpret_cast<jlong>(module.release());
  });
}

ET_JNI(jlong, Module_loadMethodNative)(JNIEnv* env, jclass, jlong handle, jstring name) {
  return guarded<jlong>(
      env, [&] { return reinterpret_cast<jlong>(&module_of(handle).load(to_string(env, name))); });
}

ET_JNI(void, Module_bindNative)(JNIEnv* env, jclass, jlong method, jobjectArray inputs) {
  guarded<int>(env, [&] {
    bind(env, method_of(method).loaded, inputs);
    return 0;
  });
}

ET_JNI(jboolean, Module_executeNative)(JNIEnv* env, jclass, jlong method) {
  return guarded<jboolean>(env, [&] { return execute(method_of(method)) ? JNI_TRUE : JNI_FALSE; });
}

ET_JNI(jobjectArray, Module_wrapOutputsNative)(JNIEnv* env, jclass, jlong method) {
  return guarded<jobjectArray>(env, [&] { return wrap_outputs(env, method_of(method)); });
}

ET_JNI(jobjectArray, Module_getMethodsNative)(JNIEnv* env, jclass, jlong handle) {
  return guarded<jobjectArray>(env, [&] { return to_java(env, module_of(handle).file.method_names()); });
}

ET_JNI(jobjectArray, Module_getUsedBackendsNative)(JNIEnv* env, jclass, jlong handle, jstring name) {
  return guarded<jobjectArray>(
      env, [&] { return to_java(env, module_of(handle).file.backends(to_string(env, name))); });
}

ET_JNI(void, Module_destroyNative)(JNIEnv*, jclass, jlong handle) {
  delete reinterpret_cast<NativeModule*>(handle);
}
