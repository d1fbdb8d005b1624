package dev.blocktime.bench

import android.os.Build
import android.os.PowerManager
import dev.blocktime.core.device.ThermalState
import java.util.concurrent.atomic.AtomicLong

/** Now, not a forecast: what has been measured is judged by it. */
private const val FORECAST_S = 0

/** Reads how hot the phone is, and counts how often it began to throttle: also between two readings. */
class ThermalWatch(
    private val power: PowerManager,
) {
    private val count = AtomicLong()

    /** Times that the status rose to severe or above since this process started. */
    val throttleCount: Long get() = count.get()

    val state: ThermalState get() = thermalState(power.currentThermalStatus)

    init {
        var throttled = isThrottled(power.currentThermalStatus)
        power.addThermalStatusListener(Runnable::run) { status ->
            if (isThrottled(status) && !throttled) count.incrementAndGet()
            throttled = isThrottled(status)
        }
    }

    /** How near severe throttling is, which is 1; null where the phone does not tell or was asked within the same second. */
    fun headroom(): Double? {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) return null
        return power.getThermalHeadroom(FORECAST_S).toDouble().takeIf(Double::isFinite)
    }
}

private fun isThrottled(status: Int) = status >= PowerManager.THERMAL_STATUS_SEVERE

/** The wire's step for a status of PowerManager (PROTOCOL.md, state). */
private fun thermalState(status: Int): ThermalState =
    when (status) {
        PowerManager.THERMAL_STATUS_NONE, PowerManager.THERMAL_STATUS_LIGHT -> ThermalState.NOMINAL
        PowerManager.THERMAL_STATUS_MODERATE -> ThermalState.FAIR
        PowerManager.THERMAL_STATUS_SEVERE -> ThermalState.SERIOUS
        else -> ThermalState.CRITICAL
    }
