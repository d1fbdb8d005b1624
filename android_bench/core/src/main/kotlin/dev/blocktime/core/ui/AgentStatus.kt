package dev.blocktime.core.ui

import dev.blocktime.core.agent.AgentListener
import dev.blocktime.core.agent.RunResult
import dev.blocktime.core.agent.Work

/** Older results and refusals are forgotten: the orchestrator keeps all, a screen shows the last. */
private const val KEPT_RESULTS = 12
private const val KEPT_REFUSALS = 6

/** What a screen shows of an agent at one moment. The newest of [results] and [refusals] comes first. */
data class Status(
    val agent: AgentState = AgentState.Stopped,
    val connected: Boolean = false,
    val work: Work? = null,
    val results: List<RunResult> = emptyList(),
    val refusals: List<Refusal> = emptyList(),
)

/** Whether the agent's port is open. */
sealed interface AgentState {
    data object Stopped : AgentState

    data class Listening(
        val port: Int,
    ) : AgentState

    /** It could not be opened; [reason] is one line for people. */
    data class Failed(
        val reason: String,
    ) : AgentState
}

/** A failed request, as reported to the client. */
data class Refusal(
    val code: String,
    val message: String,
)

/**
 * Follows an agent for a screen and a log. Called from any thread; [onChange] and [log] are called in the thread that
 * reports, with the changed status and with one line for each event. A result alone does not call [onChange]: it is
 * shown with what comes next, since a screen that is drawn disturbs a run that follows at once.
 */
class AgentStatus(
    private val log: (String) -> Unit = {},
    private val onChange: (Status) -> Unit = {},
) : AgentListener {
    private var latest = Status()

    val now: Status
        @Synchronized get() = latest

    fun onAgent(state: AgentState) {
        log(describe(state))
        change { it.copy(agent = state) }
    }

    override fun onClientConnected() {
        log("client connected")
        change { it.copy(connected = true) }
    }

    override fun onClientGone() {
        log("client gone")
        change { it.copy(connected = false, work = null) }
    }

    override fun onWork(work: Work) {
        change { it.copy(work = work) }
    }

    override fun onResult(result: RunResult) {
        log("run: ${describe(result)}")
        update { it.copy(results = (listOf(result) + it.results).take(KEPT_RESULTS)) }
    }

    override fun onRefusal(
        code: String,
        message: String,
    ) {
        log("refused: $code: $message")
        change { it.copy(work = null, refusals = (listOf(Refusal(code, message)) + it.refusals).take(KEPT_REFUSALS)) }
    }

    private fun change(transform: (Status) -> Status) = onChange(update(transform))

    @Synchronized
    private fun update(transform: (Status) -> Status): Status {
        latest = transform(latest)
        return latest
    }
}
