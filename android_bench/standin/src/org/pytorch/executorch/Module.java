package org.pytorch.executorch;

import java.io.Closeable;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Supplier;

/**
 * A .pte program.
 *
 * <p>As in the real one, {@link #execute} copies the inputs into the method's memory, and the tensors that it
 * returns lie in that memory: read them before the next execution and before {@link #destroy}. Unlike the real one it
 * looks into the inputs only where they are not those of the call before, and wraps outputs only where they moved.
 */
public class Module implements Closeable {
  public static final int LOAD_MODE_FILE = 0;
  public static final int LOAD_MODE_MMAP = 1;
  public static final int LOAD_MODE_MMAP_USE_MLOCK = 2;
  public static final int LOAD_MODE_MMAP_USE_MLOCK_IGNORE_ERRORS = 3;

  static {
    ExecuTorchRuntime.getRuntime();
  }

  private final Lock lock = new ReentrantLock();
  private final Map<String, MethodMetadata> metadata = new HashMap<>();
  private final Map<String, Method> methods = new HashMap<>();
  private long handle;

  private Module(String path, int loadMode, int numThreads) {
    handle = openNative(path, loadMode, numThreads);
    for (String name : getMethodsNative(handle)) {
      metadata.put(name, new MethodMetadata(name, getUsedBackendsNative(handle, name)));
    }
  }

  public static Module load(String path) {
    return load(path, LOAD_MODE_FILE);
  }

  public static Module load(String path, int loadMode) {
    return load(path, loadMode, 0);
  }

  /**
   * Opens a program with {@code numThreads} threads in the process-wide pool; 0 leaves the pool as it is.
   *
   * @throws ExecutorchRuntimeException INVALID_STATE where methods are loaded with another number of threads;
   *     another code where the file is not a sound program
   */
  public static Module load(String path, int loadMode, int numThreads) {
    if (path == null) {
      throw new IllegalArgumentException("Cannot load model path: path is null");
    }
    if (loadMode < LOAD_MODE_FILE || loadMode > LOAD_MODE_MMAP_USE_MLOCK_IGNORE_ERRORS) {
      throw new IllegalArgumentException("Unknown load mode " + loadMode);
    }
    return new Module(path, loadMode, numThreads);
  }

  public void loadMethod(String name) {
    locked(() -> loaded(name));
  }

  public EValue[] forward(EValue... inputs) {
    return execute("forward", inputs);
  }

  /** Allocates nothing but the array that it returns where the call before had the same inputs. */
  public EValue[] execute(String name, EValue... inputs) {
    lock.lock();
    try {
      requireAlive();
      Method method = loaded(name);
      method.bind(inputs);
      return method.execute();
    } finally {
      lock.unlock();
    }
  }

  public String[] getMethods() {
    return locked(() -> getMethodsNative(handle));
  }

  public MethodMetadata getMethodMetadata(String name) {
    MethodMetadata found = locked(() -> metadata.get(name));
    if (found == null) {
      throw new IllegalArgumentException("method " + name + " does not exist for this module");
    }
    return found;
  }

  public void destroy() {
    if (!lock.tryLock()) {
      throw new IllegalStateException("Cannot destroy module while method is executing");
    }
    try {
      if (handle != 0) {
        destroyNative(handle);
        handle = 0;
        methods.clear();
      }
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void close() {
    destroy();
  }

  private <T> T locked(Supplier<T> body) {
    lock.lock();
    try {
      requireAlive();
      return body.get();
    } finally {
      lock.unlock();
    }
  }

  private void requireAlive() {
    if (handle == 0) {
      throw new IllegalStateException("Module has been destroyed");
    }
  }

  private Method loaded(String name) {
    Method method = methods.get(name);
    if (method == null) {
      method = new Method(loadMethodNative(handle, name));
      methods.put(name, method);
    }
    return method;
  }

  /** A loaded method. It keeps the inputs that native code refers to. */
  private static final class Method {
    private final long handle;
    private EValue[] inputs;
    private EValue[] outputs;

    Method(long handle) {
      this.handle = handle;
    }

    void bind(EValue[] given) {
      if (isBound(given)) {
        return;
      }
      inputs = null;
      bindNative(handle, given);
      inputs = given.clone();
    }

    EValue[] execute() {
      if (!executeNative(handle)) {
        outputs = wrapOutputsNative(handle);
      }
      EValue[] returned = new EValue[outputs.length];
      System.arraycopy(outputs, 0, returned, 0, outputs.length);
      return returned;
    }

    private boolean isBound(EValue[] given) {
      if (inputs == null || given == null || given.length != inputs.length) {
        return false;
      }
      for (int i = 0; i < inputs.length; i++) {
        if (given[i] != inputs[i]) {
          return false;
        }
      }
      return true;
    }
  }

  private static native long openNative(String path, int loadMode, int numThreads);

  private static native long loadMethodNative(long handle, String name);

  private static native void bindNative(long method, EValue[] inputs);

  /** Whether the outputs are where they were wrapped, with the same shapes. */
  private static native boolean executeNative(long method);

  private static native EValue[] wrapOutputsNative(long method);

  private static native String[] getMethodsNative(long handle);

  private static native String[] getUsedBackendsNative(long handle, String name);

  private static native void destroyNative(long handle);
}
