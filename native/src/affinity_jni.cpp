// The native half of dev.blocktime.executorch.Affinity, on Linux and on Android.

#include "affinity.h"

#include <jni.h>

#include <cerrno>

extern "C" JNIEXPORT jint JNICALL Java_dev_blocktime_executorch_Affinity_pinNative(JNIEnv* env, jclass,
                                                                                   jintArray cores) {
  const jsize count = env->GetArrayLength(cores);
  jint* const listed = env->GetIntArrayElements(cores, nullptr);
  if (listed == nullptr) {
    return ENOMEM;
  }
  const int error = blocktime::pin_threads(reinterpret_cast<const uint32_t*>(listed), static_cast<size_t>(count));
  env->ReleaseIntArrayElements(cores, listed, JNI_ABORT);
  return error;
}
