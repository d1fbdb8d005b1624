package android.content;

public abstract class Context {
    /** API 26. */
    public abstract ComponentName startForegroundService(Intent service);
}
