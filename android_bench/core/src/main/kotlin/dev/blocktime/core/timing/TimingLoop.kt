package dev.blocktime.core.timing

import dev.blocktime.core.runtime.Call
import dev.blocktime.core.wire.OpError
import dev.blocktime.core.wire.Schedule

/**
 * Nanoseconds of every visit of [schedule] to [calls], each of which is first executed [warmup] times, and then all of
 * them in turn for as long as [warmUp], which receives the times, goes on. Before every round, and wherever executions took
 * longer than [pieceNs], [goOn] is told how many executions there were; false ends the run with OpError `cancelled`.
 * [pace] is waited for before every visit of a round. [keepWarm]: the processor is kept busy before visits. Throws
 * ExecutionFailed where the runtime fails.
 *
 * Garbage is collected before, so that the collector has no reason to run in between. All arrays exist before the
 * first reading of the clock.
 */
fun timeSchedule(
    calls: List<Call>,
    schedule: Schedule,
    warmup: Int,
    pieceNs: Long = Long.MAX_VALUE,
    warmUp: AdaptiveWarmUp? = null,
    pace: Pace = Pace(0),
    keepWarm: Boolean = false,
    goOn: (Int) -> Boolean,
): LongArray {
    val samples = LongArray(schedule.indices.size)
    val byIndex = calls.toTypedArray()
    val visits = Visits(pieceNs, goOn)
    // Not the call of System: on Android that collects only after finalizers ran (libcore, System.java), so that what
    // loading left would be collected in a round.
    Runtime.getRuntime().gc()
    for (call in byIndex) {
        repeat(warmup) { visits.time(call) }
    }
    if (warmUp != null) climb(warmUp, byIndex, visits, keepWarm)
    for (round in 0 until schedule.rounds) {
        visits.requireGoingOn()
        val start = round * schedule.visits
        for (position in start until start + schedule.visits) {
            val waitedNs = pace.await()
            if (keepWarm) spin()
            samples[position] = visits.time(byIndex[schedule.indices[position]], waitedNs)
        }
    }
    return samples
}

private fun climb(
    warmUp: AdaptiveWarmUp,
    calls: Array<Call>,
    visits: Visits,
    keepWarm: Boolean,
) {
    val roundNs = LongArray(calls.size)
    do {
        visits.requireGoingOn()
        for (index in calls.indices) {
            if (keepWarm) spin()
            roundNs[index] = visits.time(calls[index])
        }
    } while (warmUp.goesOn(roundNs))
}

/** The clock of a phone rises within a fraction of a millisecond of work. */
private const val KEEP_WARM_NS = 500_000L

private fun spin() {
    val endNs = System.nanoTime() + KEEP_WARM_NS
    @Suppress("ControlFlowWithEmptyBody")
    while (System.nanoTime() < endNs) {
    }
}

/** Counts executions, and asks [goOn] where those since it was last asked took longer than [pieceNs]. */
private class Visits(
    private val pieceNs: Long,
    private val goOn: (Int) -> Boolean,
) {
    private var executions = 0
    private var sinceAskedNs = 0L

    fun requireGoingOn() {
        sinceAskedNs = 0
        if (!goOn(executions)) throw OpError("cancelled", "the client went away during the run")
    }

    fun time(
        call: Call,
        waitedNs: Long = 0,
    ): Long {
        if (sinceAskedNs >= pieceNs) requireGoingOn()
        val ns = timed(call)
        executions++
        sinceAskedNs += ns + waitedNs
        return ns
    }
}

/** The one place where latency is measured: only the model call is between the two clock readings. */
private fun timed(call: Call): Long {
    val startNs = System.nanoTime()
    call.execute()
    return System.nanoTime() - startNs
}
