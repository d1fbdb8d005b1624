package java.util;

/** API 26. */
public class Base64 {
    private Base64() {}

    public static native Encoder getEncoder();

    public static class Encoder {
        private Encoder() {}

        public native String encodeToString(byte[] bytes);
    }
}
