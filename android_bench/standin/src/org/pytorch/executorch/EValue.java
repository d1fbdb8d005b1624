package org.pytorch.executorch;

/** An input or output of a method. On Linux only tensors. */
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

  public boolean isTensor() {
    return true;
  }

  public Tensor toTensor() {
    return tensor;
  }
}
