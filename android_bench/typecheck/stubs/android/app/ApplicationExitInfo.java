package android.app;

/** API 30. */
public final class ApplicationExitInfo {
    public static final int REASON_LOW_MEMORY = 3;
    public static final int REASON_CRASH = 4;
    public static final int REASON_CRASH_NATIVE = 5;
    public static final int REASON_ANR = 6;

    private ApplicationExitInfo() {}

    public native int getReason();
}
