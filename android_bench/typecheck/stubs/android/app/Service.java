package android.app;

public abstract class Service {
    /** API 29. */
    public final native void startForeground(int id, Notification notification, int foregroundServiceType);
}
