package dev.blocktime.jvm

import dev.blocktime.core.device.Battery
import dev.blocktime.core.device.allowedCores
import dev.blocktime.core.device.peakBytesOf
import java.io.File
import java.io.IOException

private const val BYTES_PER_KIB = 1024L

/** Linux counts processor time for programs in hundredths of a second, whatever its own tick is. */
private const val MS_PER_TICK = 10L

private const val STEAL_FIELD = 8
private const val MAX_BYTES = 1 shl 16

/** The machine's and this process's state from /proc and /sys; null where unavailable. */
internal class ProcFs(
    private val root: File = File("/"),
) {
    fun loadAverage1m(): Double? = text("proc/loadavg")?.substringBefore(' ')?.toDoubleOrNull()

    /** Time since boot that a hypervisor gave to others while this machine had work. */
    fun stealMs(): Long? =
        text("proc/stat")
            ?.lineSequence()
            ?.first()
            ?.split(Regex(" +"))
            ?.getOrNull(STEAL_FIELD)
            ?.toLongOrNull()
            ?.times(MS_PER_TICK)

    fun memoryBytes(): Long? = kibibytes("proc/meminfo", "MemTotal:")

    /** Memory that can be taken without swapping, within the limit of this process's control group if any. */
    fun freeMemoryBytes(): Long? {
        val available = kibibytes("proc/meminfo", "MemAvailable:") ?: return null
        val limit = number("sys/fs/cgroup/memory.max")
        val current = number("sys/fs/cgroup/memory.current")
        if (limit == null || current == null) return available
        val reclaimable = field("sys/fs/cgroup/memory.stat", "inactive_file")?.toLongOrNull() ?: 0
        return minOf(available, limit - current + reclaimable).coerceAtLeast(0)
    }

    fun residentBytes(): Long? = kibibytes("proc/self/status", "VmRSS:")

    fun peakResidentBytes(): Long? = text("proc/self/status")?.let(::peakBytesOf)

    /** Cores that the calling thread may run on, as Linux lists them. */
    fun allowedCores(): String? = text("proc/thread-self/status")?.let(::allowedCores)

    fun cpuModel(): String? =
        text("proc/cpuinfo")
            ?.lineSequence()
            ?.find { it.startsWith("model name") }
            ?.substringAfter(':')
            ?.trim()

    fun osName(): String? = field("etc/os-release", "PRETTY_NAME=")?.trim('"')

    fun kernel(): String? = text("proc/sys/kernel/osrelease")

    /** As `uname -m` says; since Linux 6.1. */
    fun architecture(): String? = text("proc/sys/kernel/arch")

    fun productName(): String? = text("sys/class/dmi/id/product_name")

    /** Thermal throttling events of all cores since boot (x86 only). */
    fun throttleCount(): Long? {
        val counts =
            folders("sys/devices/system/cpu").mapNotNull { number("$it/thermal_throttle/core_throttle_count") }
        return if (counts.isEmpty()) null else counts.sum()
    }

    fun battery(): Battery? {
        val supplies = folders("sys/class/power_supply")
        val battery = supplies.find { text("$it/type") == "Battery" } ?: return null
        val percent = number("$battery/capacity") ?: return null
        val charging =
            when (text("$battery/status")) {
                "Charging", "Full", "Not charging" -> true
                "Discharging" -> false
                else -> null
            }
        return Battery(percent.toDouble(), charging, celsius = null)
    }

    private fun kibibytes(
        path: String,
        name: String,
    ): Long? = field(path, name)?.substringBefore(' ')?.toLongOrNull()?.times(BYTES_PER_KIB)

    private fun field(
        path: String,
        name: String,
    ): String? =
        text(path)
            ?.lineSequence()
            ?.find { it.startsWith(name) }
            ?.removePrefix(name)
            ?.trim()

    private fun number(path: String): Long? = text(path)?.toLongOrNull()

    private fun folders(path: String): List<String> =
        File(root, path)
            .list()
            .orEmpty()
            .sorted()
            .map { "$path/$it" }

    private fun text(path: String): String? =
        try {
            File(root, path)
                .inputStream()
                .use { String(it.readNBytes(MAX_BYTES)) }
                .trim()
                .ifEmpty { null }
        } catch (_: IOException) {
            null
        }
}
