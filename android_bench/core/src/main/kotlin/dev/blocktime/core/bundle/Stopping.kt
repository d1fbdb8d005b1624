package dev.blocktime.core.bundle

import java.nio.ByteBuffer
import kotlin.math.ln
import kotlin.math.max
import kotlin.math.sqrt

/** One in four rounds is cut from each end. */
private const val CUT = 4

/** Standard errors of a mean over loads in half an interval. */
private const val ERRORS = 2.0

/** Natural logarithms of ratios to the reference, of each slot in each round of a batch. */
class BatchRatios {
    private val logs = HashMap<Int, MutableList<Double>>()

    var rounds = 0
        private set

    /** Takes in a run: slots visited, and nanoseconds as u64; of a slot's visits in a round the last counts. */
    fun add(
        order: List<List<Int>>,
        samples: ByteArray,
    ) {
        val ns = ByteBuffer.wrap(samples)
        for (visited in order) {
            val last = visited.associateWith { 0.0 }.toMutableMap()
            for (slot in visited) last[slot] = ln(max(1L, ns.getLong()).toDouble())
            val reference = (last.getValue(0) + last.getValue(1)) / 2
            for ((slot, log) in last) if (slot > 1) logs.getOrPut(slot, ::mutableListOf) += log - reference
            rounds++
        }
    }

    /** Midmean of each slot's rounds. */
    fun locations(): Map<Int, Double> = logs.mapValues { (_, values) -> midmean(values) }

    /** Standard error of the midmean of the slot that has most. */
    fun noise(): Double = logs.values.maxOfOrNull(::errorOf) ?: 0.0

    /** Whether the batch can end before all its runs. */
    fun areEnough(stop: Script.Stop?): Boolean = stop != null && rounds >= stop.minRounds && noise() <= stop.loadSe

    private fun midmean(values: List<Double>): Double {
        val cut = values.size / CUT
        return values.sorted().subList(cut, values.size - cut).average()
    }

    /** By the winsorized variance (Tukey and McLaughlin 1963); infinite for one round. */
    private fun errorOf(values: List<Double>): Double {
        if (values.size < 2) return Double.POSITIVE_INFINITY
        val cut = values.size / CUT
        val sorted = values.sorted()
        val winsorized = values.map { it.coerceIn(sorted[cut], sorted[values.size - 1 - cut]) }
        val variance = squaresOf(winsorized) / (values.size - 1)
        return sqrt(variance / values.size) / (1 - 2.0 * cut / values.size)
    }
}

/**
 * Why a bundle ends after [passes]; null where the next one is to be made. [loads] are midmeans of models' loads,
 * [models] those that are to be narrow, [workedS] seconds of all batches.
 */
fun ending(
    stop: Script.Stop?,
    passes: Long,
    loads: Map<String, List<Double>>,
    models: Collection<String>,
    workedS: Double,
): String? =
    when {
        stop == null || passes < stop.minPasses -> null
        halfWidth(models.map { loads[it].orEmpty() }) <= stop.halfWidth -> "narrow"
        workedS > stop.budgetS -> "budget"
        else -> null
    }

/** Half the widest 95 % interval of a model's mean over its loads; infinite where one has fewer than two. */
internal fun halfWidth(groups: Collection<List<Double>>): Double {
    if (groups.isEmpty()) return 0.0
    val fewest = groups.minOf { it.size }
    if (fewest < 2) return Double.POSITIVE_INFINITY
    val variance = groups.sumOf(::squaresOf) / groups.sumOf { it.size - 1 }
    return ERRORS * sqrt(variance / fewest)
}

private fun squaresOf(values: List<Double>): Double {
    val mean = values.average()
    return values.sumOf { (it - mean) * (it - mean) }
}
