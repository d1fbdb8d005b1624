package dev.blocktime.bench

import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.content.pm.ApplicationInfo
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import android.os.SystemClock
import android.system.Os
import android.system.OsConstants
import dev.blocktime.core.device.Battery
import dev.blocktime.core.device.DeviceInfo
import dev.blocktime.core.device.DeviceProbe
import dev.blocktime.core.device.DeviceReading
import dev.blocktime.core.device.Foreground
import dev.blocktime.core.device.SysFs
import dev.blocktime.core.device.allowedCores
import dev.blocktime.core.device.androidBattery
import dev.blocktime.core.device.peakBytesOf
import dev.blocktime.core.device.threadsByDefault
import java.io.File
import java.io.IOException

/** Hardware names of Android's emulator, whose milliseconds are those of the computer that it runs on. */
private val EMULATORS = setOf("goldfish", "ranchu")

/** Asks the Android system what the phone is and how it is. */
class AndroidProbe(
    private val context: Context,
    private val foreground: Foreground,
) : DeviceProbe {
    private val activities = context.getSystemService(ActivityManager::class.java)
    private val power = context.getSystemService(PowerManager::class.java)
    private val batteries = context.getSystemService(BatteryManager::class.java)
    private val thermal = ThermalWatch(power)
    private val sysFs = SysFs()

    /** All of the phone, by number. */
    val cores = List(Runtime.getRuntime().availableProcessors()) { it }

    /** Whether the phone has a mode of sustained performance. */
    val canSustain = power.isSustainedPerformanceModeSupported

    /** Whether the app's window asks for that mode. */
    @Volatile var isSustained = false

    private val isDebuggable = context.applicationInfo.flags and ApplicationInfo.FLAG_DEBUGGABLE != 0

    override fun identity() =
        DeviceInfo(
            model = Build.MODEL,
            os = "Android ${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT})",
            osBuild = Build.FINGERPRINT,
            soc = soc(),
            cores = cores.size,
            memoryBytes = memory().totalMem,
            simulated = Build.HARDWARE in EMULATORS,
        )

    override fun read() =
        DeviceReading(
            uptimeNs = SystemClock.elapsedRealtimeNanos(),
            cpus = sysFs.cpuClocks(),
            thermalState = thermal.state,
            thermalHeadroom = thermal.headroom(),
            thermalZones = sysFs.thermalZones(),
            throttleCount = thermal.throttleCount,
            battery = battery(),
            lowPowerMode = power.isPowerSaveMode,
            freeMemoryBytes = freeMemoryBytes(),
            agentMemoryBytes = residentBytes(),
            agentPeakMemoryBytes = text("/proc/self/status")?.let(::peakBytesOf),
            foreground = foreground.sinceLastAsked(),
            sustainedPerformance = isSustained,
            cores = text("/proc/thread-self/status")?.let(::allowedCores),
            debuggable = isDebuggable,
        )

    /** Asked for at every load, so apart from what is costly to read or changes by being read. */
    fun freeMemoryBytes(): Long = memory().availMem

    /** As many threads as there are cores that are not little. */
    fun defaultThreads(): Int = threadsByDefault(cores, sysFs.capacities(), sysFs.highestMhz())

    private fun soc(): String? {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.S) return null
        val names = listOf(Build.SOC_MANUFACTURER, Build.SOC_MODEL).filterNot { it == Build.UNKNOWN }
        return names.joinToString(" ").ifEmpty { null }
    }

    private fun memory() = ActivityManager.MemoryInfo().also(activities::getMemoryInfo)

    private fun battery(): Battery? {
        val changed = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED)) ?: return null
        return androidBattery(
            level = changed.number(BatteryManager.EXTRA_LEVEL),
            scale = changed.number(BatteryManager.EXTRA_SCALE),
            status = changed.number(BatteryManager.EXTRA_STATUS),
            temperature = changed.number(BatteryManager.EXTRA_TEMPERATURE),
            chargeUah = batteries.getIntProperty(BatteryManager.BATTERY_PROPERTY_CHARGE_COUNTER),
            voltage = changed.number(BatteryManager.EXTRA_VOLTAGE),
        )
    }
}

private fun Intent.number(name: String): Int? = if (hasExtra(name)) getIntExtra(name, 0) else null

private fun residentBytes(): Long? {
    val pages = text("/proc/self/statm")?.split(' ')?.getOrNull(1)?.toLongOrNull()
    return pages?.times(Os.sysconf(OsConstants._SC_PAGESIZE))
}

/** A short file of /proc; null where it can't be read. */
internal fun text(path: String): String? =
    try {
        File(path).readText()
    } catch (_: IOException) {
        null
    }
