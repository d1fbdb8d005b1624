package dev.blocktime.core.bundle

/** Where a bundle stands, read from the records of its journal. */
class BundleProgress {
    private val begun = HashMap<Long, Int>()
    private val over = HashSet<Long>()
    private val deaths = HashMap<String, Int>()
    private var loading: String? = null

    /** Models that are left out. */
    val failed = HashSet<String>()

    /** Midmeans of the log ratios of each model's loads in batches that are done. */
    val loads = HashMap<String, MutableList<Double>>()

    /** Seconds of all batches that ended. */
    var workedS = 0.0
        private set

    /** The first reply to a hello. */
    var greeting: Map<*, *>? = null
        private set

    var isFinished = false
        private set

    /** Takes in the next record. */
    fun add(record: Map<String, Any?>) {
        when (record["kind"]) {
            "start" -> {
                if (greeting == null) greeting = record["hello"] as Map<*, *>
                loading?.let { deaths[it] = deathsOf(it) + 1 }
            }

            "batch" -> {
                begun[numberOf(record)] = begunTimes(numberOf(record)) + 1
            }

            "end" -> {
                end(record)
            }

            "failed" -> {
                failed += record["sha256"] as String
            }

            "done" -> {
                isFinished = true
            }
        }
        loading = if (record["kind"] == "loading") record["sha256"] as String else null
    }

    private fun end(record: Map<String, Any?>) {
        if (record["again"] == false) over += numberOf(record)
        workedS += (record["worked_s"] as Number?)?.toDouble() ?: 0.0
        for ((sha256, log) in (record["logs"] as Map<*, *>?).orEmpty()) {
            loads.getOrPut(sha256 as String, ::mutableListOf) += (log as Number).toDouble()
        }
    }

    /** How often a batch was begun. */
    fun begunTimes(batch: Long): Int = begun[batch] ?: 0

    /** How often the agent was ended while it loaded a model. */
    fun deathsOf(sha256: String): Int = deaths[sha256] ?: 0

    /** Whether a batch is to be begun, for the first time or again. */
    fun wants(
        batch: Long,
        attempts: Int,
    ): Boolean = batch !in over && begunTimes(batch) < attempts

    private fun numberOf(record: Map<String, Any?>) = (record["batch"] as Number).toLong()
}
