package org.pytorch.executorch;

/** Loads libetjni.so from java.library.path, once a process, and tells what it can do. */
public class ExecuTorchRuntime {
  static {
    System.loadLibrary("etjni");
  }

  private static final ExecuTorchRuntime INSTANCE = new ExecuTorchRuntime();

  private ExecuTorchRuntime() {}

  public static ExecuTorchRuntime getRuntime() {
    return INSTANCE;
  }

  public static native String[] getRegisteredBackends();
}
