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

/** A row-major tensor on a direct buffer of native byte order, which it shares with its maker. */
public abstract class Tensor {
  final long[] shape;

  private Tensor(long[] shape) {
    this.shape = shape.clone();
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
    return new OnBuffer(checked(data, data.isDirect(), data.order(), shape), shape, DType.UINT8);
  }

  public static Tensor fromBlob(ByteBuffer data, long[] shape) {
    return new OnBuffer(checked(data, data.isDirect(), data.order(), shape), shape, DType.INT8);
  }

  /** Half floats as their bits. */
  public static Tensor fromBlob(ShortBuffer data, long[] shape) {
    return new OnBuffer(checked(data, data.isDirect(), data.order(), shape), shape, DType.HALF);
  }

  public static Tensor fromBlob(IntBuffer data, long[] shape) {
    return new OnBuffer(checked(data, data.isDirect(), data.order(), shape), shape, DType.INT32);
  }

  public static Tensor fromBlob(LongBuffer data, long[] shape) {
    return new OnBuffer(checked(data, data.isDirect(), data.order(), shape), shape, DType.INT64);
  }

  public static Tensor fromBlob(FloatBuffer data, long[] shape) {
    return new OnBuffer(checked(data, data.isDirect(), data.order(), shape), shape, DType.FLOAT);
  }

  public static Tensor fromBlob(DoubleBuffer data, long[] shape) {
    return new OnBuffer(checked(data, data.isDirect(), data.order(), shape), shape, DType.DOUBLE);
  }

  public abstract DType dtype();

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
    throw noSuchData("byte array");
  }

  public byte[] getDataAsUnsignedByteArray() {
    throw noSuchData("unsigned byte array");
  }

  /** Half floats as their bits. */
  public short[] getDataAsShortArray() {
    throw noSuchData("short array");
  }

  public int[] getDataAsIntArray() {
    throw noSuchData("int array");
  }

  public long[] getDataAsLongArray() {
    throw noSuchData("long array");
  }

  public float[] getDataAsFloatArray() {
    throw noSuchData("float array");
  }

  public double[] getDataAsDoubleArray() {
    throw noSuchData("double array");
  }

  /** Called from native code. */
  int dtypeJniCode() {
    return dtype().jniCode;
  }

  /** Called from native code. */
  abstract Buffer getRawDataBuffer();

  /** Called from native code; {@code data} is the memory of the method that computed the tensor. */
  private static Tensor nativeNewTensor(ByteBuffer data, long[] shape, int jniCode) {
    ByteBuffer bytes = data.order(ByteOrder.nativeOrder());
    DType dtype = DType.fromJniCode(jniCode);
    switch (dtype) {
      case FLOAT:
        return new OnBuffer(bytes.asFloatBuffer(), shape, dtype);
      case HALF:
        return new OnBuffer(bytes.asShortBuffer(), shape, dtype);
      case INT32:
        return new OnBuffer(bytes.asIntBuffer(), shape, dtype);
      case INT64:
        return new OnBuffer(bytes.asLongBuffer(), shape, dtype);
      case DOUBLE:
        return new OnBuffer(bytes.asDoubleBuffer(), shape, dtype);
      default:
        return new OnBuffer(bytes, shape, dtype);
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

  private IllegalStateException noSuchData(String kind) {
    return new IllegalStateException("Tensor of type " + dtype() + " cannot return data as " + kind);
  }

  /** The real library has a class for each type; what they do differs only in the buffer. */
  private static final class OnBuffer extends Tensor {
    private final Buffer data;
    private final DType dtype;

    OnBuffer(Buffer data, long[] shape, DType dtype) {
      super(shape);
      this.data = data;
      this.dtype = dtype;
    }

    @Override
    public DType dtype() {
      return dtype;
    }

    @Override
    Buffer getRawDataBuffer() {
      return data;
    }

    @Override
    public byte[] getDataAsByteArray() {
      return dtype == DType.INT8 ? bytes() : super.getDataAsByteArray();
    }

    @Override
    public byte[] getDataAsUnsignedByteArray() {
      return dtype == DType.UINT8 ? bytes() : super.getDataAsUnsignedByteArray();
    }

    @Override
    public short[] getDataAsShortArray() {
      if (dtype != DType.HALF) {
        return super.getDataAsShortArray();
      }
      short[] values = new short[data.capacity()];
      ((ShortBuffer) data).duplicate().rewind().get(values);
      return values;
    }

    @Override
    public int[] getDataAsIntArray() {
      if (dtype != DType.INT32) {
        return super.getDataAsIntArray();
      }
      int[] values = new int[data.capacity()];
      ((IntBuffer) data).duplicate().rewind().get(values);
      return values;
    }

    @Override
    public long[] getDataAsLongArray() {
      if (dtype != DType.INT64) {
        return super.getDataAsLongArray();
      }
      long[] values = new long[data.capacity()];
      ((LongBuffer) data).duplicate().rewind().get(values);
      return values;
    }

    @Override
    public float[] getDataAsFloatArray() {
      if (dtype != DType.FLOAT) {
        return super.getDataAsFloatArray();
      }
      float[] values = new float[data.capacity()];
      ((FloatBuffer) data).duplicate().rewind().get(values);
      return values;
    }

    @Override
    public double[] getDataAsDoubleArray() {
      if (dtype != DType.DOUBLE) {
        return super.getDataAsDoubleArray();
      }
      double[] values = new double[data.capacity()];
      ((DoubleBuffer) data).duplicate().rewind().get(values);
      return values;
    }

    private byte[] bytes() {
      byte[] values = new byte[data.capacity()];
      ((ByteBuffer) data).duplicate().rewind().get(values);
      return values;
    }
  }
}
