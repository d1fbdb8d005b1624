package android;

public final class Manifest {
    public static final class permission {
        /** API 33. */
        public static final String POST_NOTIFICATIONS = "android.permission.POST_NOTIFICATIONS";
    }
}
