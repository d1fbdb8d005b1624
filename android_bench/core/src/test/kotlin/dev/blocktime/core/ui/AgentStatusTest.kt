package dev.blocktime.core.ui

import dev.blocktime.core.agent.ModelMedian
import dev.blocktime.core.agent.RunResult
import dev.blocktime.core.agent.Work
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Test

class AgentStatusTest {
    private val log = mutableListOf<String>()
    private val seen = mutableListOf<Status>()
    private val status = AgentStatus(log::add, seen::add)

    @Test
    fun `follows a client from its greeting to its end`() {
        status.onAgent(AgentState.Listening(47613))
        status.onClientConnected()
        status.onWork(Work("load", "0123456789ab"))
        assertEquals(
            Status(AgentState.Listening(47613), connected = true, work = Work("load", "0123456789ab")),
            status.now,
        )
        status.onClientGone()
        assertFalse(status.now.connected)
        assertNull(status.now.work)
        assertEquals(listOf("listening on 127.0.0.1:47613", "client connected", "client gone"), log)
        assertEquals(4, seen.size)
        assertEquals(status.now, seen.last())
    }

    @Test
    fun `keeps the last results, the newest first`() {
        val results = (1..20).map { RunResult(listOf(ModelMedian("abc", it * 1_000_000L)), visits = 10) }
        results.forEach(status::onResult)
        assertEquals(results.reversed().take(12), status.now.results)
        assertEquals("run: abc, 10 visits, 20.000 ms", log.last())
    }

    @Test
    fun `a result is shown with what comes next`() {
        status.onResult(RunResult(listOf(ModelMedian("abc", 1)), visits = 10))
        assertEquals(emptyList<Status>(), seen)
        status.onWork(Work("unload", "handle 1"))
        assertEquals(1, seen.single().results.size)
    }

    @Test
    fun `keeps the last refusals as the client was told`() {
        repeat(10) { status.onRefusal("bad_model", "number $it") }
        assertEquals((9 downTo 4).map { Refusal("bad_model", "number $it") }, status.now.refusals)
        assertEquals("refused: bad_model: number 9", log.last())
    }
}
