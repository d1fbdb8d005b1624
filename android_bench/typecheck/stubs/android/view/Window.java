package android.view;

public abstract class Window {
    /** API 24. */
    public native void setSustainedPerformanceMode(boolean enable);
}
