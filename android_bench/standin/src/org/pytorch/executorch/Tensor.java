package org.pytorch.executorch;

import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.ShortBuffer;
import java.util.Arrays;

/**
 * A row-major tensor on a direct buffer of native byte order, which it shares with its maker.
 *
 * <p>Native code reads the private fields. The real class is abstract, with a private subclass for each type.
 */
public class Tensor {
  private final Buffer data;
  private final long[] shape;
  private final DType dtype;
  private final int jniCode;

  private Tensor(Buffer data, long[] shape, DType dtype) {
    this.data = data;
    this.shape = shape.clone();
    this.dtype = dtype;
    this.jniCode = dtype.jniCode;
  }

  public static ByteBuffer allocateByteBuffer(int numElements) {
    return ByteBuffer.allocateDirect(numElements).order(ByteOrder.nativeOrder());
  }

  public static ShortBuffer allocateHalfBuffer(int numElements) {
    return allocateByteBuffer(Math.multiplyExact(numElements, Short.BYTES)).asShortBuffer();
  }

  public static IntBuffer allocateIntBuffer(int numElements) {
    return allocateByteBuffer(Math.multiplyExact(numElements, Integer.BYTES)).asIntBuffer();
  }

  public static LongBuffer allocateLongBuffer(int numElements) {
    return allocateByteBuffer(Math.multiplyExact(numElements, Long.BYTES)).asLongBuffer();
  }

  public static FloatBuffer allocateFloatBuffer(int numElements) {
    return allocateByteBuffer(Math.multiplyExact(numElements, Float.BYTES)).asFloatBuffer();
  }

  public static DoubleBuffer allocateDoubleBuffer(int numElements) {
    return allocateByteBuffer(Math.multiplyExact(numElements, Double.BYTES)).asDoubleBuffer();
  }

  public static Tensor fromBlobUnsigned(ByteBuffer data, long[] shape) {
    return new Tensor(checked(data, data.isDirect(), data.order(), shape), shape, DType.UINT8);
  }

  public static Tensor fromBlob(ByteBuffer data, long[] shape) {
    return new Tensor(checked(data, data.isDirect(), data.order(), shape), shape, DType.INT8);
  }

  /** Half floats as their bits. */
  public static Tensor fromBlob(ShortBuffer data, long[] shape) {
    return new Tensor(checked(data, data.isDirect(), data.order(), shape), shape, DType.HALF);
  }

  public static Tensor fromBlob(IntBuffer data, long[] shape) {
    return new Tensor(checked(data, data.isDirect(), data.order(), shape), shape, DType.INT32);
  }

  public static Tensor fromBlob(LongBuffer data, long[] shape) {
    return new Tensor(checked(data, data.isDirect(), data.order(), shape), shape, DType.INT64);
  }

  public static Tensor fromBlob(FloatBuffer data, long[] shape) {
    return new Tensor(checked(data, data.isDirect(), data.order(), shape), shape, DType.FLOAT);
  }

  public static Tensor fromBlob(DoubleBuffer data, long[] shape) {
    return new Tensor(checked(data, data.isDirect(), data.order(), shape), shape, DType.DOUBLE);
  }

  public DType dtype() {
    return dtype;
  }

  public long[] shape() {
    return shape.clone();
  }

  public long numel() {
    return numel(shape);
  }

  public static long numel(long[] shape) {
    long numel = 1;
    for (long size : shape) {
      require(size >= 0, "Shape elements must be non negative");
      numel = Math.multiplyExact(numel, size);
    }
    return numel;
  }

  public byte[] getDataAsByteArray() {
    requireType(DType.INT8, "byte array");
    byte[] values = new byte[data.capacity()];
    ((ByteBuffer) data).duplicate().rewind().get(values);
    return values;
  }

  public byte[] getDataAsUnsignedByteArray() {
    requireType(DType.UINT8, "unsigned byte array");
    byte[] values = new byte[data.capacity()];
    ((ByteBuffer) data).duplicate().rewind().get(values);
    return values;
  }

  /** Half floats as their bits. */
  public short[] getDataAsShortArray() {
    requireType(DType.HALF, "short array");
    short[] values = new short[data.capacity()];
    ((ShortBuffer) data).duplicate().rewind().get(values);
    return values;
  }

  public int[] getDataAsIntArray() {
    requireType(DType.INT32, "int array");
    int[] values = new int[data.capacity()];
    ((IntBuffer) data).duplicate().rewind().get(values);
    return values;
  }

  public long[] getDataAsLongArray() {
    requireType(DType.INT64, "long array");
    long[] values = new long[data.capacity()];
    ((LongBuffer) data).duplicate().rewind().get(values);
    return values;
  }

  public float[] getDataAsFloatArray() {
    requireType(DType.FLOAT, "float array");
    float[] values = new float[data.capacity()];
    ((FloatBuffer) data).duplicate().rewind().get(values);
    return values;
  }

  public double[] getDataAsDoubleArray() {
    requireType(DType.DOUBLE, "double array");
    double[] values = new double[data.capacity()];
    ((DoubleBuffer) data).duplicate().rewind().get(values);
    return values;
  }

  /** {@code data} is the memory of the method that computed the tensor. */
  static Tensor onOutput(ByteBuffer data, long[] shape, int jniCode) {
    ByteBuffer bytes = data.order(ByteOrder.nativeOrder());
    DType dtype = DType.fromJniCode(jniCode);
    switch (dtype) {
      case FLOAT:
        return new Tensor(bytes.asFloatBuffer(), shape, dtype);
      case HALF:
        return new Tensor(bytes.asShortBuffer(), shape, dtype);
      case INT32:
        return new Tensor(bytes.asIntBuffer(), shape, dtype);
      case INT64:
        return new Tensor(bytes.asLongBuffer(), shape, dtype);
      case DOUBLE:
        return new Tensor(bytes.asDoubleBuffer(), shape, dtype);
      default:
        return new Tensor(bytes, shape, dtype);
    }
  }

  private static <B extends Buffer> B checked(B data, boolean direct, ByteOrder order, long[] shape) {
    require(direct, "Data buffer must be direct");
    require(order == ByteOrder.nativeOrder(), "Data buffer must have native byte order");
    require(
        numel(shape) == data.capacity(),
        "Inconsistent data capacity " + data.capacity() + " and shape " + Arrays.toString(shape));
    return data;
  }

  private static void require(boolean holds, String message) {
    if (!holds) {
      throw new IllegalArgumentException(message);
    }
  }

  private void requireType(DType needed, String kind) {
    if (dtype != needed) {
      throw new IllegalStateException("Tensor of type " + dtype + " cannot return data as " + kind);
    }
  }
}
