package org.pytorch.executorch;

/** Types of tensors; the codes are ExecuTorch's own (executorch/schema/scalar_type.fbs). */
public enum DType {
  UINT8(0),
  INT8(1),
  INT16(2),
  INT32(3),
  INT64(4),
  HALF(5),
  FLOAT(6),
  DOUBLE(7),
  BOOL(11);

  final int jniCode;

  DType(int jniCode) {
    this.jniCode = jniCode;
  }

  public static DType fromJniCode(int jniCode) {
    for (DType dtype : values()) {
      if (dtype.jniCode == jniCode) {
        return dtype;
      }
    }
    throw new IllegalArgumentException("No DType found for jniCode " + jniCode);
  }
}
