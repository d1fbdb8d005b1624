package dev.blocktime.jvm

import dev.blocktime.core.device.Battery
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

class ProcFsTest {
    @TempDir lateinit var root: File

    private fun write(
        path: String,
        text: String,
    ) = File(root, path).apply { parentFile.mkdirs() }.writeText(text)

    @Test
    fun `where nothing is told nothing is guessed`() {
        val proc = ProcFs(root)
        assertNull(proc.loadAverage1m())
        assertNull(proc.stealMs())
        assertNull(proc.freeMemoryBytes())
        assertNull(proc.allowedCores())
        assertNull(proc.cpuModel())
        assertNull(proc.osName())
        assertNull(proc.throttleCount())
        assertNull(proc.battery())
    }

    @Test
    fun `processor, memory and load`() {
        write("proc/loadavg", "0.52 0.58 0.59 1/467 12345\n")
        write("proc/stat", "cpu  10 20 30 40 50 60 70 81 90 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n")
        write("proc/meminfo", "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    500 kB\n")
        write("proc/self/status", "Name:\tjava\nVmHWM:\t  96 kB\nVmRSS:\t  64 kB\n")
        write("proc/thread-self/status", "Name:\tjava\nCpus_allowed:\tf,0000000f\nCpus_allowed_list:\t0-3,32-35\n")
        write("proc/cpuinfo", "processor\t: 0\nmodel name\t: A fast one\n")
        write("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian 12\"\n")
        val proc = ProcFs(root)
        assertEquals(0.52, proc.loadAverage1m())
        assertEquals(810, proc.stealMs())
        assertEquals(1_024_000, proc.memoryBytes())
        assertEquals(512_000, proc.freeMemoryBytes())
        assertEquals(65_536, proc.residentBytes())
        assertEquals(98_304, proc.peakResidentBytes())
        assertEquals("0-3,32-35", proc.allowedCores())
        assertEquals("A fast one", proc.cpuModel())
        assertEquals("Debian 12", proc.osName())
    }

    @Test
    fun `a control group bounds free memory`() {
        write("proc/meminfo", "MemAvailable: 500 kB\n")
        write("sys/fs/cgroup/memory.max", "max\n")
        write("sys/fs/cgroup/memory.current", "100000\n")
        assertEquals(512_000, ProcFs(root).freeMemoryBytes())
        write("sys/fs/cgroup/memory.max", "150000\n")
        write("sys/fs/cgroup/memory.stat", "anon 5\ninactive_file 7000\n")
        assertEquals(57_000, ProcFs(root).freeMemoryBytes())
        write("sys/fs/cgroup/memory.current", "900000\n")
        assertEquals(0, ProcFs(root).freeMemoryBytes())
    }

    @Test
    fun `throttling and battery`() {
        for ((cpu, count) in listOf(0 to 3, 1 to 4)) {
            write("sys/devices/system/cpu/cpu$cpu/thermal_throttle/core_throttle_count", "$count\n")
        }
        write("sys/class/power_supply/AC/type", "Mains\n")
        write("sys/class/power_supply/BAT0/type", "Battery\n")
        write("sys/class/power_supply/BAT0/capacity", "42\n")
        write("sys/class/power_supply/BAT0/status", "Discharging\n")
        assertEquals(7, ProcFs(root).throttleCount())
        assertEquals(Battery(42.0, charging = false, celsius = null), ProcFs(root).battery())
    }
}
