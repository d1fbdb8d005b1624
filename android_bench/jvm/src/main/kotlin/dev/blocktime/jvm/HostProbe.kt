package dev.blocktime.jvm

import dev.blocktime.core.device.DeviceInfo
import dev.blocktime.core.device.DeviceProbe
import dev.blocktime.core.device.DeviceReading
import dev.blocktime.core.device.SysFs
import dev.blocktime.core.device.parseCores

/** This machine, or a [simulated] product. Its network name is left out because LUTs are shared. */
internal class HostProbe(
    private val proc: ProcFs,
    private val sys: SysFs,
    private val simulated: String?,
) : DeviceProbe {
    /** Those that this process may use, as it was started: its threads may be pinned to some of them later. */
    val cores = proc.allowedCores()?.let(::parseCores) ?: List(Runtime.getRuntime().availableProcessors()) { it }

    override fun identity() =
        DeviceInfo(
            model = simulated ?: proc.productName() ?: proc.architecture() ?: System.getProperty("os.arch"),
            os = proc.osName() ?: System.getProperty("os.name"),
            osBuild = proc.kernel(),
            soc = proc.cpuModel(),
            cores = cores.size,
            memoryBytes = proc.memoryBytes() ?: 0,
            simulated = simulated != null,
        )

    override fun read() =
        DeviceReading(
            uptimeNs = System.nanoTime(),
            loadAverage1m = proc.loadAverage1m(),
            cpus = sys.cpuClocks(),
            stealMs = proc.stealMs(),
            thermalZones = sys.thermalZones(),
            throttleCount = proc.throttleCount(),
            battery = proc.battery(),
            freeMemoryBytes = proc.freeMemoryBytes(),
            agentMemoryBytes = proc.residentBytes(),
            agentPeakMemoryBytes = proc.peakResidentBytes(),
            cores = proc.allowedCores(),
        )
}
