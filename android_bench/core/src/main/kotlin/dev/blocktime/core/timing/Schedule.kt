package dev.blocktime.core.timing

import dev.blocktime.core.OpError
import dev.blocktime.core.runtime.Call

/** The order in which models are visited: [rounds] x [visits] indices, one round after the other. */
class Schedule(
    val rounds: Int,
    val visits: Int,
    val indices: IntArray,
)

/**
 * Nanoseconds of every visit of [schedule] to [calls], each of which is first executed [warmup] times. [goOn] is asked
 * between rounds; false ends the run with OpError `cancelled`. Throws ExecutionFailed where the runtime fails.
 *
 * Garbage is collected before, so that the collector has no reason to run in between. All arrays exist before the
 * first reading of the clock.
 */
fun timeSchedule(
    calls: List<Call>,
    schedule: Schedule,
    warmup: Int,
    goOn: () -> Boolean,
): LongArray {
    val samples = LongArray(schedule.indices.size)
    val byIndex = calls.toTypedArray()
    System.gc()
    for (call in byIndex) {
        repeat(warmup) { call.execute() }
    }
    for (round in 0 until schedule.rounds) {
        if (!goOn()) throw OpError("cancelled", "the client went away during the run")
        val start = round * schedule.visits
        for (position in start until start + schedule.visits) {
            samples[position] = timed(byIndex[schedule.indices[position]])
        }
    }
    return samples
}

/** The one place where latency is measured: nothing but the model call lies between the two readings. */
private fun timed(call: Call): Long {
    val startNs = System.nanoTime()
    call.execute()
    return System.nanoTime() - startNs
}
