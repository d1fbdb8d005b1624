package dev.blocktime.core.device

import java.util.concurrent.atomic.AtomicLong

// android.os.PowerManager's THERMAL_STATUS_…
private const val THERMAL_NONE = 0
private const val THERMAL_LIGHT = 1
private const val THERMAL_SEVERE = 3

// android.os.BatteryManager's BATTERY_STATUS_…
private const val BATTERY_CHARGING = 2
private const val BATTERY_DISCHARGING = 3
private const val BATTERY_NOT_CHARGING = 4
private const val BATTERY_FULL = 5

private const val TENTHS_OF_A_DEGREE = 10.0

/** The wire's step for a [status] of PowerManager (PROTOCOL.md, state): even light throttling slows the processor. */
fun androidThermalState(status: Int): ThermalState =
    when {
        status <= THERMAL_NONE -> ThermalState.NOMINAL
        status <= THERMAL_SEVERE -> ThermalState.SERIOUS
        else -> ThermalState.CRITICAL
    }

/**
 * The battery by the extras of ACTION_BATTERY_CHANGED, each null where it is missing; null where the charge is not told.
 *
 * On external power but held back, to protect a full or hot battery, counts as charging.
 */
fun androidBattery(
    level: Int?,
    scale: Int?,
    status: Int?,
    temperature: Int?,
): Battery? {
    if (level == null || scale == null || level < 0 || scale <= 0) return null
    val charging =
        when (status) {
            BATTERY_CHARGING, BATTERY_NOT_CHARGING, BATTERY_FULL -> true
            BATTERY_DISCHARGING -> false
            else -> null
        }
    return Battery(100.0 * level / scale, charging, temperature?.div(TENTHS_OF_A_DEGREE))
}

/** Counts how often a phone began to throttle, so that it is known also when it happened between two readings. */
class ThrottleCounter(
    initialStatus: Int,
) {
    private val times = AtomicLong()
    private var throttled = initialStatus >= THERMAL_LIGHT

    val count: Long get() = times.get()

    /** Takes the next [status] of PowerManager; from one thread at a time. */
    fun onStatus(status: Int) {
        val isThrottled = status >= THERMAL_LIGHT
        if (isThrottled && !throttled) times.incrementAndGet()
        throttled = isThrottled
    }
}
