package dev.blocktime.core.device

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

class SysFsTest {
    @TempDir
    lateinit var root: File

    private val sysFs get() = SysFs(root)

    @Test
    fun `reads clocks by number of the core`() {
        write("devices/system/cpu/cpu10/cpufreq/scaling_cur_freq", "2850000\n")
        write("devices/system/cpu/cpu2/cpufreq/scaling_max_freq", "1803000\n")
        write("devices/system/cpu/cpu2/cpufreq/cpuinfo_max_freq", "2367000\n")
        write("devices/system/cpu/cpu2/cpufreq/scaling_governor", "sched_pixel\n")
        write("devices/system/cpu/cpu3/topology/core_id", "3\n")
        write("devices/system/cpu/cpufreq/boost", "1\n")
        assertEquals(
            listOf(CpuClock(2, null, 1803.0, "sched_pixel", 2367.0), CpuClock(10, 2850.0, null, null)),
            sysFs.cpuClocks(),
        )
    }

    @Test
    fun `reads capacities of the cores that have one`() {
        write("devices/system/cpu/cpu0/cpu_capacity", "250\n")
        write("devices/system/cpu/cpu11/cpu_capacity", "1024\n")
        write("devices/system/cpu/cpu12/topology/core_id", "12\n")
        assertEquals(mapOf(0 to 250.0, 11 to 1024.0), sysFs.capacities())
    }

    @Test
    fun `leaves out sensors without name or temperature`() {
        write("class/thermal/thermal_zone0/type", "BIG\n")
        write("class/thermal/thermal_zone0/temp", "41500\n")
        write("class/thermal/thermal_zone1/type", "LITTLE\n")
        write("class/thermal/thermal_zone2/type", "G3D\n")
        write("class/thermal/thermal_zone2/temp", "hot\n")
        write("class/thermal/cooling_device0/type", "fan\n")
        assertEquals(listOf(ThermalZone("BIG", 41.5)), sysFs.thermalZones())
    }

    @Test
    fun `tells nothing where nothing can be read`() {
        assertEquals(emptyList<CpuClock>(), sysFs.cpuClocks())
        assertEquals(emptyList<ThermalZone>(), sysFs.thermalZones())
    }

    @Test
    fun `reads no more of a file than it needs`() {
        write("class/thermal/thermal_zone0/type", "x".repeat(100_000))
        write("class/thermal/thermal_zone0/temp", "0")
        assertEquals(listOf(ThermalZone("x".repeat(256), 0.0)), sysFs.thermalZones())
    }

    private fun write(
        path: String,
        text: String,
    ) {
        val file = File(root, path)
        file.parentFile.mkdirs()
        file.writeText(text)
    }
}
