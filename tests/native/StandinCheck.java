import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.util.Arrays;
import org.pytorch.executorch.DType;
import org.pytorch.executorch.EValue;
import org.pytorch.executorch.ExecuTorchRuntime;
import org.pytorch.executorch.ExecutorchRuntimeException;
import org.pytorch.executorch.Module;
import org.pytorch.executorch.Tensor;

/** Prints what the stand-in answers, a line each; run by test_native_standin.py. */
public class StandinCheck {
  public static void main(String[] paths) {
    System.out.println("backends " + Arrays.asList(ExecuTorchRuntime.getRegisteredBackends()));
    convolution(paths[0]);
    lookup(paths[1]);
    failures(paths[0]);
  }

  /** Input: i / 1000 for element i. */
  private static FloatBuffer ramp(int length) {
    FloatBuffer buffer = Tensor.allocateFloatBuffer(length);
    for (int i = 0; i < length; i++) {
      buffer.put(i, i / 1000f);
    }
    return buffer;
  }

  private static EValue image() {
    return EValue.from(Tensor.fromBlob(ramp(3 * 32 * 32), new long[] {1, 3, 32, 32}));
  }

  private static void convolution(String path) {
    try (Module module = Module.load(path, Module.LOAD_MODE_MMAP, 1)) {
      System.out.println("methods " + Arrays.asList(module.getMethods()));
      String[] used = module.getMethodMetadata("forward").getBackends();
      System.out.println("used " + Arrays.asList(used));
      module.loadMethod("forward");
      Tensor output = module.forward(image())[0].toTensor();
      System.out.println("sizes " + Arrays.toString(output.shape()));
      System.out.println("convolution " + Arrays.toString(output.getDataAsFloatArray()));
    }
  }

  private static void lookup(String path) {
    LongBuffer indices = Tensor.allocateLongBuffer(4);
    indices.put(0, 6).put(2, 3).put(3, 1);
    try (Module module = Module.load(path)) {
      EValue index = EValue.from(Tensor.fromBlob(indices, new long[] {4}));
      EValue offset = EValue.from(Tensor.fromBlob(ramp(20), new long[] {4, 5}));
      EValue[] outputs = module.execute("forward", index, offset);
      System.out.println("lookup " + Arrays.toString(outputs[0].toTensor().getDataAsFloatArray()));
      System.out.println("types " + outputs[0].toTensor().dtype() + " " + outputs[1].toTensor().dtype());
      indices.put(0, 5);
      EValue[] anew = module.execute("forward", index, offset);
      System.out.println("rewritten " + Arrays.toString(anew[0].toTensor().getDataAsFloatArray()));
      System.out.println("returned " + (anew != outputs && anew[0] == outputs[0]));
      anew[0] = null;
      say("swapped", () -> module.execute("forward", offset, index));
      EValue other = EValue.from(Tensor.fromBlob(Tensor.allocateFloatBuffer(20), new long[] {4, 5}));
      EValue[] bare = module.execute("forward", index, other);
      System.out.println("exchanged " + Arrays.toString(bare[0].toTensor().getDataAsFloatArray()));
    }
  }

  private static void failures(String path) {
    Module module = Module.load(path, Module.LOAD_MODE_MMAP, 1);
    module.loadMethod("forward");
    say("threads", () -> Module.load(path, Module.LOAD_MODE_MMAP, 2));
    say("missing", () -> Module.load(path + ".missing", Module.LOAD_MODE_FILE));
    say("method", () -> module.loadMethod("backward"));
    say("count", module::forward);
    say("null", () -> module.forward((EValue) null));
    say("nulls", () -> module.forward((EValue[]) null));
    say("name", () -> module.loadMethod(null));
    say("shape", () -> module.forward(EValue.from(Tensor.fromBlob(ramp(6), new long[] {2, 3}))));
    say("type", () -> module.forward(EValue.from(longs())));
    say("capacity", () -> Tensor.fromBlob(ramp(6), new long[] {7}));
    say("heap", () -> Tensor.fromBlob(FloatBuffer.allocate(6), new long[] {6}));
    say("order", () -> Tensor.fromBlob(ByteBuffer.allocateDirect(24).asFloatBuffer(), new long[] {6}));
    say("data", () -> longs().getDataAsFloatArray());
    say("dtype", () -> DType.fromJniCode(99));
    module.destroy();
    module.destroy();
    say("destroyed", () -> module.forward(image()));
  }

  private static Tensor longs() {
    return Tensor.fromBlob(Tensor.allocateLongBuffer(3072), new long[] {1, 3, 32, 32});
  }

  private static void say(String what, Runnable body) {
    try {
      body.run();
      System.out.println(what + " nothing was thrown");
    } catch (ExecutorchRuntimeException error) {
      System.out.println(what + " code " + error.getErrorCode() + " " + error.getMessage());
    } catch (RuntimeException error) {
      System.out.println(what + " " + error.getClass().getSimpleName() + " " + error.getMessage());
    }
  }
}
