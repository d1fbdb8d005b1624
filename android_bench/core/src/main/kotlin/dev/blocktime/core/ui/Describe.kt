package dev.blocktime.core.ui

import dev.blocktime.core.agent.RunResult
import dev.blocktime.core.agent.Work
import dev.blocktime.core.device.Caveat
import dev.blocktime.core.device.DeviceReading
import dev.blocktime.core.device.reasonsNotToMeasure
import java.util.Locale

private const val NS_PER_MS = 1e6

/** One line on whether the agent can be reached. */
fun describe(state: AgentState): String =
    when (state) {
        AgentState.Stopped -> "stopped"
        is AgentState.Listening -> "listening on 127.0.0.1:${state.port}"
        is AgentState.Failed -> "not listening: ${state.reason}"
    }

/** One line on what the agent is doing; runs, which are not reported, may follow a load. */
fun describe(
    work: Work?,
    connected: Boolean,
): String =
    when {
        work?.op == "load" -> "load ${work.detail}, then runs"
        work != null -> "${work.op} ${work.detail}".trim()
        connected -> "waiting for a request"
        else -> "waiting for a client"
    }

/** One line on a finished run: how many models and visits, and the range of their medians. */
fun describe(result: RunResult): String {
    val visits = "${result.visits} visits"
    val medians = result.models.map { it.medianNs }
    return when (medians.size) {
        0 -> visits
        1 -> "${result.models.single().model}, $visits, ${millis(medians.single())} ms"
        else -> "${medians.size} models, $visits, ${millis(medians.min())} to ${millis(medians.max())} ms"
    }
}

/** One line on whether the device, with this [reading], would be measured; [allowed] are reasons to ignore. */
fun describeReadiness(
    reading: DeviceReading,
    allowed: Set<Caveat>,
): String {
    val reasons = reasonsNotToMeasure(reading)
    val (ignored, standing) = reasons.partition(allowed::contains)
    return when {
        standing.isNotEmpty() -> "not ready: ${standing.joinToString("; ") { it.remedy }}"
        ignored.isNotEmpty() -> "ready, ignoring ${ignored.joinToString { it.wireName }}, which every result will say"
        else -> "ready"
    }
}

private fun millis(ns: Long) = String.format(Locale.ROOT, "%.3f", ns / NS_PER_MS)
