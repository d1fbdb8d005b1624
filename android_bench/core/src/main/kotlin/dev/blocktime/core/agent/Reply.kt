package dev.blocktime.core.agent

import dev.blocktime.core.device.Battery
import dev.blocktime.core.device.Caveat
import dev.blocktime.core.device.CpuClock
import dev.blocktime.core.device.DeviceInfo
import dev.blocktime.core.device.DeviceReading
import dev.blocktime.core.runtime.Model
import dev.blocktime.core.runtime.OptionInfo
import dev.blocktime.core.runtime.RuntimeInfo
import dev.blocktime.core.timing.AdaptiveWarmUp
import dev.blocktime.core.wire.PROTOCOL_VERSION
import dev.blocktime.core.wire.TensorSpec

private const val MAX_TEXT = 256
private const val MAX_MESSAGE = 1000
private val SPACE = Regex("\\s+")

/** What an op is answered with: the reply's fields, and the payload in pieces. */
internal class Reply(
    val fields: Map<String, Any?> = emptyMap(),
    vararg val payload: ByteArray,
)

/** The error frame's header. [message] becomes one line of bounded length. */
internal fun errorReply(
    id: Long?,
    code: String,
    message: String,
): Map<String, Any?> =
    mapOf(
        "id" to id,
        "error" to mapOf("code" to code, "message" to message.trim().replace(SPACE, " ").take(MAX_MESSAGE)),
    )

internal fun helloFields(
    agent: AgentInfo,
    device: DeviceInfo,
    runtimes: Map<String, RuntimeInfo>,
): Map<String, Any?> =
    mapOf(
        "protocol" to PROTOCOL_VERSION,
        "agent" to mapOf("name" to agent.name, "version" to agent.version),
        "device" to
            mapOf(
                "model" to device.model.take(MAX_TEXT),
                "os" to device.os.take(MAX_TEXT),
                "os_build" to device.osBuild?.take(MAX_TEXT),
                "soc" to device.soc?.take(MAX_TEXT),
                "cores" to device.cores,
                "memory_bytes" to device.memoryBytes,
                "simulated" to device.simulated,
            ),
        "runtimes" to runtimes.mapValues { (_, info) -> runtimeFields(info) },
        "heartbeat" to true,
        "timed_warmup" to true,
        "heartbeat_ops" to listOf("load", "placement"),
        "pace" to true,
        "keep_warm" to true,
    )

internal fun loadFields(
    handle: Long,
    model: Model,
): Map<String, Any?> =
    mapOf(
        "handle" to handle,
        "load_ns" to model.loadNs,
        "options" to model.options,
        "inputs" to model.inputs.map(::tensorFields),
        "outputs" to model.outputs.map(::tensorFields),
        "delegates" to model.delegates?.map { mapOf("backend" to it.backend, "count" to it.count) },
        "placement" to null,
    )

internal fun warmedFields(warmUp: AdaptiveWarmUp): Map<String, Any?> =
    mapOf("ns" to warmUp.ns, "rounds" to warmUp.rounds, "steady" to warmUp.steady)

internal fun tensorFields(spec: TensorSpec): Map<String, Any?> =
    mapOf("dtype" to spec.dtype.wireName, "shape" to spec.shape)

internal fun stateFields(
    reading: DeviceReading,
    caveats: List<Caveat>,
): Map<String, Any?> =
    mapOf(
        "uptime_ns" to reading.uptimeNs,
        "load_average_1m" to finite(reading.loadAverage1m),
        "cpus" to reading.cpus.map(::clockFields),
        "steal_ms" to reading.stealMs,
        "thermal_state" to reading.thermalState?.wireName,
        "thermal_headroom" to finite(reading.thermalHeadroom),
        "thermal_zones" to reading.thermalZones.map { mapOf("name" to it.name, "celsius" to it.celsius) },
        "throttle_count" to reading.throttleCount,
        "battery" to reading.battery?.let(::batteryFields),
        "low_power_mode" to reading.lowPowerMode,
        "free_memory_bytes" to reading.freeMemoryBytes,
        "agent_memory_bytes" to reading.agentMemoryBytes,
        "agent_peak_memory_bytes" to reading.agentPeakMemoryBytes,
        "qos" to null,
        "foreground" to reading.foreground,
        "sustained_performance" to reading.sustainedPerformance,
        "cores" to reading.cores?.take(MAX_TEXT),
        "caveats" to caveats.map { it.wireName },
    )

private fun runtimeFields(info: RuntimeInfo): Map<String, Any?> =
    mapOf(
        "version" to info.version,
        "backends" to info.backends,
        "options" to info.options.mapValues { (_, option) -> optionFields(option) },
    )

private fun optionFields(option: OptionInfo): Map<String, Any?> =
    mapOf(
        "type" to option.type,
        "default" to option.default,
        "min" to option.min,
        "max" to option.max,
        "choices" to option.choices,
    )

private fun clockFields(clock: CpuClock): Map<String, Any?> =
    mapOf(
        "cpu" to clock.cpu,
        "mhz" to finite(clock.mhz),
        "max_mhz" to finite(clock.maxMhz),
        "governor" to clock.governor?.take(MAX_TEXT),
        "hardware_max_mhz" to finite(clock.hardwareMaxMhz),
    )

private fun batteryFields(battery: Battery): Map<String, Any?> =
    mapOf(
        "percent" to battery.percent,
        "charging" to battery.charging,
        "celsius" to finite(battery.celsius),
        "charge_uah" to battery.chargeUah,
        "voltage_mv" to battery.voltageMv,
    )

/** Android reports an unknown headroom as NaN. */
private fun finite(value: Double?): Double? = value?.takeUnless { it.isNaN() || it.isInfinite() }
