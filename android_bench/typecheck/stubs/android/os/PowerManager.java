package android.os;

import java.util.concurrent.Executor;

public final class PowerManager {
    /** API 24. */
    public native boolean isSustainedPerformanceModeSupported();

    /** API 29. */
    public native int getCurrentThermalStatus();

    /** API 29. */
    public native void addThermalStatusListener(Executor executor, OnThermalStatusChangedListener listener);

    /** API 29. */
    public native void removeThermalStatusListener(OnThermalStatusChangedListener listener);

    /** API 30. */
    public native float getThermalHeadroom(int forecastSeconds);

    /** API 29. */
    public interface OnThermalStatusChangedListener {
        void onThermalStatusChanged(int status);
    }
}
