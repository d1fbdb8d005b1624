package dev.blocktime.core.agent

/**
 * Asked during a run with the number of executions so far: calls [beat] with it where [everyNs] have gone by, and says
 * whether to go on.
 */
internal class Pulse(
    private val clientIsThere: () -> Boolean,
    private val everyNs: Long,
    private val beat: (Int) -> Unit,
) {
    private var lastNs = System.nanoTime()

    fun goOn(executions: Int): Boolean {
        if (System.nanoTime() - lastNs >= everyNs) {
            beat(executions)
            lastNs = System.nanoTime()
        }
        return clientIsThere()
    }
}
