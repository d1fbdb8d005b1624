package android.app;

import android.content.Context;

public class Notification {
    public static class Builder {
        /** API 26. */
        public Builder(Context context, String channelId) {}
    }
}
