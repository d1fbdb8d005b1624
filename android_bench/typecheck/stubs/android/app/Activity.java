package android.app;

import android.view.View;

public class Activity {
    /** API 26: the type of the view is that which the caller expects. */
    public native <T extends View> T findViewById(int id);
}
