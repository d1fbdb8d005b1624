package dev.blocktime.core.timing

/** A window is whole rounds of at least this time: in 32 ms Linux' load tracking, which sets clocks, forgets half. */
private const val WINDOW_NS = 50_000_000L

/** Medians are those of a window's last rounds, which bounds the memory for tiny models. */
private const val WINDOW_ROUNDS = 15

/** A window still falls where the sum of its medians is lower than that of the window before by more than this. */
private const val FALL_PERCENT = 1

/** Windows in a row that do not fall: one alone may be slow by chance. */
private const val STEADY_WINDOWS = 2

/**
 * Says when a run is warm: follows rounds of warm-up, in each of which each of [models] is executed once, until their
 * latencies stop falling or [boundNs] have gone by in them. Python's and Swift's agents do the same
 * (protocol/golden/ramps.json). It allocates nothing between executions.
 */
class AdaptiveWarmUp(
    private val models: Int,
    private val boundNs: Long,
) {
    private val times = LongArray(models * WINDOW_ROUNDS)
    private val sorted = LongArray(WINDOW_ROUNDS)
    private var windowNs = 0L
    private var windowRounds = 0
    private var quietWindows = 0
    private var levelNs = -1L

    /** Nanoseconds in the models so far. */
    var ns = 0L
        private set

    /** Executions of each model so far. */
    var rounds = 0
        private set

    /** Whether latencies have stopped falling. */
    var steady = false
        private set

    /** Takes in a round's nanoseconds, one for each model; whether another round is due. */
    fun goesOn(roundNs: LongArray): Boolean {
        val takenNs = roundNs.sum()
        ns += takenNs
        rounds++
        windowNs += takenNs
        roundNs.copyInto(times, models * (windowRounds % WINDOW_ROUNDS))
        windowRounds++
        if (windowNs >= WINDOW_NS) endWindow()
        return !steady && ns < boundNs
    }

    private fun endWindow() {
        val endedNs = (0 until models).sumOf(::median)
        if (levelNs >= 0) {
            val fell = 100 * endedNs < (100 - FALL_PERCENT) * levelNs
            quietWindows = if (fell) 0 else quietWindows + 1
        }
        levelNs = endedNs
        windowNs = 0
        windowRounds = 0
        steady = quietWindows >= STEADY_WINDOWS
    }

    /** The lower of two, where there are two. */
    private fun median(model: Int): Long {
        val kept = minOf(windowRounds, WINDOW_ROUNDS)
        for (round in 0 until kept) sorted[round] = times[models * round + model]
        sorted.sort(0, kept)
        return sorted[(kept - 1) / 2]
    }
}
