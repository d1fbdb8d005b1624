package org.pytorch.executorch;

import java.nio.ByteBuffer;

/** An input or output of a method. On Linux only tensors. Native code reads the private field. */
public class EValue {
  private final Tensor tensor;

  private EValue(Tensor tensor) {
    this.tensor = tensor;
  }

  public static EValue from(Tensor tensor) {
    if (tensor == null) {
      throw new IllegalArgumentException("EValue.from needs a tensor");
    }
    return new EValue(tensor);
  }

  /** Called from native code. */
  private static EValue onOutput(ByteBuffer data, long[] shape, int jniCode) {
    return from(Tensor.onOutput(data, shape, jniCode));
  }

  public boolean isTensor() {
    return true;
  }

  public Tensor toTensor() {
    return tensor;
  }
}
