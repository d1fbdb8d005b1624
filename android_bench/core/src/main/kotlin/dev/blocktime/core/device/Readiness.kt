package dev.blocktime.core.device

import dev.blocktime.core.wire.OpError

/**
 * Below this a phone may save power without saying so, for example by taking cores away, also while it charges; the
 * limit of androidx.benchmark (Errors.kt).
 */
const val LOW_BATTERY_PERCENT = 25.0

/**
 * Of thermal headroom, which is 1 where throttling gets severe and falls by 1 for 30 degrees less (AOSP's
 * ThermalManagerService). A Pixel 8 cuts its power budget 8 degrees before severe: from 1 - 8/30 on.
 */
const val HOT_HEADROOM = 0.73

/** Reasons not to measure, with their names on the wire and what the user can do. */
enum class Caveat(
    val wireName: String,
    val remedy: String,
) {
    DEBUGGABLE_BUILD("debuggable_build", "the app is a debuggable build; install a release build"),
    POWER_SAVE("power_save", "power saving is on; switch it off"),
    LOW_BATTERY("low_battery", "the battery is below 25 %; charge the device"),
    THROTTLED("throttled", "the device is hot or throttled by heat; let it cool down"),
    BACKGROUND("background", "the app is in the background; bring it to the front and unlock the screen"),
    ;

    companion object {
        /** The reasons named in [names], separated by commas; throws IllegalArgumentException for an unknown one. */
        fun parse(names: String): Set<Caveat> =
            names
                .split(',')
                .map(String::trim)
                .filter(String::isNotEmpty)
                .map { name ->
                    entries.find { it.wireName == name } ?: throw IllegalArgumentException(
                        "no reason is called '$name'; known: ${entries.joinToString { it.wireName }}",
                    )
                }.toSet()
    }
}

/** Whether a device can be measured. [allowed] are conditions that the user accepts. */
class Readiness(
    private val allowed: () -> Set<Caveat> = { emptySet() },
) {
    /** Conditions that the user accepts; reported with every state. */
    fun caveats(reading: DeviceReading): List<Caveat> = reasonsNotToMeasure(reading).filter(allowed()::contains)

    /** Throws OpError `not_ready` where there is a reason that the user did not allow. */
    fun require(reading: DeviceReading) {
        val reasons = reasonsNotToMeasure(reading).filterNot(allowed()::contains)
        if (reasons.isEmpty()) return
        val names = reasons.joinToString(",") { it.wireName }
        val remedies = reasons.joinToString("; ") { it.remedy }
        throw OpError("not_ready", "the device is not in a state to be measured: $remedies; or allow it: $names")
    }
}

/** All reasons not to measure on a device with this [reading]; an unknown value is not a reason. */
fun reasonsNotToMeasure(reading: DeviceReading): List<Caveat> =
    Caveat.entries.filter { caveat ->
        when (caveat) {
            Caveat.DEBUGGABLE_BUILD -> reading.debuggable == true
            Caveat.POWER_SAVE -> reading.lowPowerMode == true
            Caveat.LOW_BATTERY -> reading.battery?.let { it.percent < LOW_BATTERY_PERCENT } == true
            Caveat.THROTTLED -> isHot(reading)
            Caveat.BACKGROUND -> reading.foreground == false
        }
    }

private fun isHot(reading: DeviceReading): Boolean =
    reading.thermalState?.let { it >= ThermalState.SERIOUS } == true ||
        reading.thermalHeadroom?.let { it >= HOT_HEADROOM } == true
