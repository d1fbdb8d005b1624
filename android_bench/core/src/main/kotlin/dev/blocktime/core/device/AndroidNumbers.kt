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

// Range of a phone's battery. Some phones report volts instead of millivolts.
private val MILLIVOLTS = 2_000..20_000
private const val HEADROOM_KEPT_NS = 1_000_000_000L
private const val BYTES_PER_KIB = 1024
private val PEAK = Regex("""^VmHWM:\s*(\d+) kB$""", RegexOption.MULTILINE)

/** The wire's step for a [status] of PowerManager (PROTOCOL.md, state): even light throttling slows the processor. */
fun androidThermalState(status: Int): ThermalState =
    when {
        status <= THERMAL_NONE -> ThermalState.NOMINAL
        status <= THERMAL_SEVERE -> ThermalState.SERIOUS
        else -> ThermalState.CRITICAL
    }

/**
 * The battery by the extras of ACTION_BATTERY_CHANGED, each null where it is missing; null if the charge is missing.
 *
 * On external power but held back, to protect a full or hot battery, counts as charging. [chargeUah] is
 * BATTERY_PROPERTY_CHARGE_COUNTER, which is 0 or less where the battery has no such counter.
 */
fun androidBattery(
    level: Int?,
    scale: Int?,
    status: Int?,
    temperature: Int?,
    chargeUah: Int? = null,
    voltage: Int? = null,
): Battery? {
    if (level == null || scale == null || level < 0 || scale <= 0) return null
    val charging =
        when (status) {
            BATTERY_CHARGING, BATTERY_NOT_CHARGING, BATTERY_FULL -> true
            BATTERY_DISCHARGING -> false
            else -> null
        }
    return Battery(
        percent = 100.0 * level / scale,
        charging = charging,
        celsius = temperature?.div(TENTHS_OF_A_DEGREE),
        chargeUah = chargeUah?.takeIf { it > 0 }?.toLong(),
        voltageMv = voltage?.takeIf { it in MILLIVOLTS }?.toLong(),
    )
}

/** The most memory that a process ever had resident, of its /proc/PID/[status]; null if that is missing. */
fun peakBytesOf(status: String): Long? =
    PEAK
        .find(status)
        ?.groupValues
        ?.get(1)
        ?.toLongOrNull()
        ?.times(BYTES_PER_KIB)

/**
 * Thermal headroom as PowerManager's [read] gives it, which is NaN where the phone has none and within 500 ms of the
 * call before (AOSP, PowerManager.getThermalHeadroom). So a value is kept for a second, and the system is not asked
 * meanwhile.
 */
class ThermalHeadroom(
    private val clockNs: () -> Long = System::nanoTime,
    private val read: () -> Float,
) {
    private var kept: Double? = null
    private var keptAtNs = 0L

    /** 1 being severe throttling; null where the phone does not tell. */
    @Synchronized
    fun now(): Double? {
        val nowNs = clockNs()
        if (kept == null || nowNs - keptAtNs >= HEADROOM_KEPT_NS) {
            kept = read().toDouble().takeIf(Double::isFinite)
            keptAtNs = nowNs
        }
        return kept
    }
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
