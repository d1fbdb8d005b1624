package dev.blocktime.bench

import android.os.Build
import android.os.PowerManager
import dev.blocktime.core.device.ThermalHeadroom
import dev.blocktime.core.device.ThermalState
import dev.blocktime.core.device.ThrottleCounter
import dev.blocktime.core.device.androidThermalState

/** Now, not a forecast: what has been measured is judged by it. */
private const val FORECAST_S = 0

/** Reads how hot the phone is, and counts how often it began to throttle. */
class ThermalWatch(
    private val power: PowerManager,
) {
    private val throttling = ThrottleCounter(power.currentThermalStatus)

    /** Times that throttling began since this process started. */
    val throttleCount: Long get() = throttling.count

    val state: ThermalState get() = androidThermalState(power.currentThermalStatus)

    init {
        power.addThermalStatusListener(Runnable::run, throttling::onStatus)
    }

    private val headroom =
        ThermalHeadroom {
            if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) Float.NaN else power.getThermalHeadroom(FORECAST_S)
        }

    /** Thermal headroom, 1 being severe throttling; null if unavailable. */
    fun headroom(): Double? = headroom.now()
}
