package android.content;

public class ContextWrapper {
    /** API 26. */
    public native ComponentName startForegroundService(Intent service);
}
