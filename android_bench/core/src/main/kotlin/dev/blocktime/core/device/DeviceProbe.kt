package dev.blocktime.core.device

/** Reports the device's identity and state. Null, or an empty list, where unknown: nothing is guessed. */
interface DeviceProbe {
    /** What this device is. Constant while the agent runs. */
    fun identity(): DeviceInfo

    /** How it is now. May take some milliseconds; never called inside a timed run. */
    fun read(): DeviceReading
}

/** What the device is. [cores]: those that the agent may use. [simulated]: the agent runs on another machine than it names. */
data class DeviceInfo(
    val model: String,
    val os: String,
    val osBuild: String?,
    val soc: String?,
    val cores: Int,
    val memoryBytes: Long,
    val simulated: Boolean = false,
)

/** A moment of the device; fields as `state` in PROTOCOL.md. [debuggable] is not a field there but decides readiness. */
data class DeviceReading(
    val uptimeNs: Long,
    val loadAverage1m: Double? = null,
    val cpus: List<CpuClock> = emptyList(),
    val stealMs: Long? = null,
    val thermalState: ThermalState? = null,
    val thermalHeadroom: Double? = null,
    val thermalZones: List<ThermalZone> = emptyList(),
    val throttleCount: Long? = null,
    val battery: Battery? = null,
    val lowPowerMode: Boolean? = null,
    val freeMemoryBytes: Long? = null,
    val agentMemoryBytes: Long? = null,
    val agentPeakMemoryBytes: Long? = null,
    val foreground: Boolean? = null,
    val sustainedPerformance: Boolean? = null,
    val cores: String? = null,
    val debuggable: Boolean? = null,
)

/** The clock of one core, the highest that it may have now, and the highest that its hardware has. */
data class CpuClock(
    val cpu: Int,
    val mhz: Double?,
    val maxMhz: Double?,
    val governor: String?,
    val hardwareMaxMhz: Double? = null,
)

/** A temperature sensor. */
data class ThermalZone(
    val name: String,
    val celsius: Double,
)

/** The battery; [charging] also where it is full and on external power. [chargeUah]: left, by its own counter. */
data class Battery(
    val percent: Double,
    val charging: Boolean?,
    val celsius: Double?,
    val chargeUah: Long? = null,
    val voltageMv: Long? = null,
)

/** Thermal pressure in the wire's four steps, in rising order. */
enum class ThermalState(
    val wireName: String,
) {
    NOMINAL("nominal"),
    FAIR("fair"),
    SERIOUS("serious"),
    CRITICAL("critical"),
}
