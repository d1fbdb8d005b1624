package dev.blocktime.core.device

import java.io.File
import java.io.IOException

private const val MAX_CHARS = 256
private const val KHZ_PER_MHZ = 1000.0
private const val MILLIDEGREES = 1000.0
private val CPU_FOLDER = Regex("cpu(\\d+)")

/** Clocks and temperatures under [root]; unreadable files, frequent on phones, are left out. */
class SysFs(
    private val root: File = File("/sys"),
) {
    /** Cores of which something can be read, by number. */
    fun cpuClocks(): List<CpuClock> =
        folders("devices/system/cpu")
            .mapNotNull { folder -> CPU_FOLDER.matchEntire(folder.name)?.let { folder to it.groupValues[1].toInt() } }
            .sortedBy { (_, cpu) -> cpu }
            .map { (folder, cpu) ->
                CpuClock(
                    cpu = cpu,
                    mhz = number(File(folder, "cpufreq/scaling_cur_freq"))?.div(KHZ_PER_MHZ),
                    maxMhz = number(File(folder, "cpufreq/scaling_max_freq"))?.div(KHZ_PER_MHZ),
                    governor = text(File(folder, "cpufreq/scaling_governor")),
                    hardwareMaxMhz = number(File(folder, "cpufreq/cpuinfo_max_freq"))?.div(KHZ_PER_MHZ),
                )
            }.filterNot { it == CpuClock(it.cpu, null, null, null) }

    /** Highest clock that the hardware has, of the cores that report it. */
    fun highestMhz(): Map<Int, Double> =
        cpuClocks().mapNotNull { clock -> clock.hardwareMaxMhz?.let { clock.cpu to it } }.toMap()

    /** Capacity of the cores that have one: what a core does at its highest clock, the largest core being 1024. */
    fun capacities(): Map<Int, Double> =
        folders("devices/system/cpu")
            .mapNotNull { folder ->
                val capacity = number(File(folder, "cpu_capacity")) ?: return@mapNotNull null
                CPU_FOLDER.matchEntire(folder.name)?.let { it.groupValues[1].toInt() to capacity.toDouble() }
            }.toMap()

    /** All sensors with a name and a temperature. */
    fun thermalZones(): List<ThermalZone> =
        folders("class/thermal")
            .filter { it.name.startsWith("thermal_zone") }
            .sortedBy { it.name }
            .mapNotNull { folder ->
                val name = text(File(folder, "type"))
                val celsius = number(File(folder, "temp"))?.div(MILLIDEGREES)
                if (name == null || celsius == null) null else ThermalZone(name, celsius)
            }

    private fun folders(path: String): List<File> = File(root, path).listFiles().orEmpty().filter(File::isDirectory)
}

private fun number(file: File): Long? = text(file)?.toLongOrNull()

/** The first characters of [file], trimmed; null where there are none or it can't be read. */
private fun text(file: File): String? =
    try {
        val buffer = CharArray(MAX_CHARS)
        val count = file.reader().use { it.read(buffer) }
        if (count <= 0) null else String(buffer, 0, count).trim().ifEmpty { null }
    } catch (_: IOException) {
        null
    }
