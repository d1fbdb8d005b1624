package android.app;

public class NotificationManager {
    /** API 24. */
    public static final int IMPORTANCE_LOW = 2;

    /** API 26. */
    public native void createNotificationChannel(NotificationChannel channel);
}
