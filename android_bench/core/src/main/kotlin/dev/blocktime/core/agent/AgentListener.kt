package dev.blocktime.core.agent

/**
 * What an app shows of its agent. Nothing of it is called while models are timed or right before, and nothing may block
 * for long.
 */
interface AgentListener {
    /** A client was greeted. Called on the thread that serves and times, whose priority may be set here. */
    fun onClientConnected() {}

    /** The client is gone and all it loaded is freed. */
    fun onClientGone() {}

    /** Current activity. Runs are not reported, so that no screen is drawn when one begins. */
    fun onWork(work: Work) {}

    /** A run has ended well. Another one may follow at once, so that this is no moment to draw. */
    fun onResult(result: RunResult) {}

    /** A request was refused or failed, with the error that the client got. */
    fun onRefusal(
        code: String,
        message: String,
    ) {}
}

/** A finished run: the median of each of its [models] over all rounds, in nanoseconds. */
data class RunResult(
    val models: List<ModelMedian>,
    val visits: Int,
)

/** [model] is the short hash of the model's file. */
data class ModelMedian(
    val model: String,
    val medianNs: Long,
)
