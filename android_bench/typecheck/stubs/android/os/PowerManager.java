package android.os;

import java.util.concurrent.Executor;

public final class PowerManager {
    public static final int THERMAL_STATUS_NONE = 0;
    public static final int THERMAL_STATUS_LIGHT = 1;
    public static final int THERMAL_STATUS_MODERATE = 2;
    public static final int THERMAL_STATUS_SEVERE = 3;
    public static final int THERMAL_STATUS_CRITICAL = 4;
    public static final int THERMAL_STATUS_EMERGENCY = 5;
    public static final int THERMAL_STATUS_SHUTDOWN = 6;

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
