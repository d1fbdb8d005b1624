package dev.blocktime.core.agent

import dev.blocktime.core.device.Battery
import dev.blocktime.core.device.Caveat
import dev.blocktime.core.device.DeviceReading
import dev.blocktime.core.device.ThermalState
import dev.blocktime.core.wire.encodeHeader
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.nio.ByteBuffer

/** Checks and runs over real sockets, with models made of arithmetic. */
class RunTest : AgentTest() {
    @Test
    fun `check and run`() {
        val agent = agent()
        val client = agent.greeted()
        val handles = listOf("a", "b").map(client::load)
        val (checked, payload) =
            client.ask(
                "check",
                mapOf("handle" to handles[0], "inputs" to PAIR_FIELDS),
                pair(1.5f, -2f),
            )
        assertEquals(PAIR_FIELDS.toString(), checked["outputs"].toString())
        assertArrayEquals(pair(3f, -4f), payload)
        agent.runtime.executions.clear()
        val (reply, samples) = client.ask("run", run(handles, listOf(listOf(0, 1, 1), listOf(1, 0, 1)), warmup = 2))
        assertEquals("aabb" + "abb" + "bab", agent.runtime.executions.joinToString(""))
        assertEquals(listOf(2L, 3L), listOf(reply["rounds"], reply["visits"]))
        val nanoseconds = ByteBuffer.wrap(samples).asLongBuffer()
        assertEquals(6, nanoseconds.remaining())
        assertTrue((0 until 6).all { nanoseconds[it] in 1..10_000_000_000 })
        assertEquals(
            listOf(2, 6),
            agent.listener.results
                .single()
                .let { listOf(it.models.size, it.visits) },
        )
    }

    @Test
    fun `the thread that loads and times models is prepared before it loads any`() {
        val agent = agent()
        val threads = mutableListOf<Thread?>()
        agent.runtime.onLoad = { threads += listOf(agent.prepared, Thread.currentThread()) }
        agent.runtime.onExecute = { threads += Thread.currentThread() }
        val client = agent.greeted()
        client.ask("run", run(listOf(client.load("a")), listOf(listOf(0))))
        assertEquals(3, threads.size)
        assertEquals(1, threads.toSet().size)
    }

    @Test
    fun `bad schedules are refused and nothing is executed`() {
        val agent = agent()
        val client = agent.greeted()
        val handle = client.load("a")
        assertEquals("bad_request", client.refusal("run", run(listOf(handle), listOf(listOf(0), listOf(0, 0)))))
        assertEquals("bad_request", client.refusal("run", run(listOf(handle), listOf(listOf(1)))))
        assertEquals("bad_request", client.refusal("run", run(listOf(handle), listOf(listOf(-1)))))
        val wide = List(100_001) { 0 }
        assertEquals("bad_request", client.refusal("run", run(listOf(handle), listOf(wide, wide))))
        assertEquals("unknown_handle", client.refusal("run", run(listOf(handle, 7), listOf(listOf(0, 1)))))
        assertTrue(agent.runtime.executions.isEmpty())
    }

    @Test
    fun `a run warms up by time where it is asked to`() {
        val client = agent().greeted()
        assertEquals(true, client.greet()["timed_warmup"])
        val request = run(listOf(client.load("a")), listOf(listOf(0)))
        assertFalse("warmed" in client.ask("run", request).first)
        val warmed = client.ask("run", request + ("warmup_ms" to 1)).first["warmed"] as Map<*, *>
        assertEquals(false, warmed["steady"])
        assertTrue((warmed["ns"] as Long) >= 1_000_000)
        assertTrue((warmed["rounds"] as Long) >= 1)
        assertEquals("bad_request", client.refusal("run", request + ("warmup_ms" to 60_001)))
    }

    @Test
    fun `a run says whether it kept the processor warm where it was asked`() {
        val client = agent().greeted()
        assertEquals(true, client.greet()["keep_warm"])
        val request = run(listOf(client.load("a")), listOf(listOf(0)))
        assertFalse("keep_warm" in client.ask("run", request).first["state_after"] as Map<*, *>)
        for (warm in listOf(true, false)) {
            val reply = client.ask("run", request + ("keep_warm" to warm)).first
            for (state in listOf("state_before", "state_after")) {
                assertEquals(warm, (reply[state] as Map<*, *>)["keep_warm"])
            }
        }
        assertEquals("bad_request", client.refusal("run", request + ("keep_warm" to 1)))
    }

    @Test
    fun `nothing is told around runs, which may follow each other`() {
        val agent = agent()
        val client = agent.greeted()
        val handle = client.load("a")
        val before = agent.listener.events.toList()
        assertEquals("load", before.last())
        repeat(2) { client.ask("run", run(listOf(handle), listOf(listOf(0)))) }
        assertEquals(before, agent.listener.events)
        assertEquals(2, agent.listener.results.size)
    }

    @Test
    fun `a client that leaves during a run ends it`() {
        val agent = agent()
        val client = agent.greeted()
        val handle = client.load("a")
        agent.runtime.onExecute = { if (agent.runtime.executions.size == 3) client.socket.close() }
        val order = List(1000) { listOf(0) }
        client.send(encodeHeader(mapOf("id" to 9, "op" to "run") + run(listOf(handle), order)))
        agent.greeted().close()
        assertTrue(agent.runtime.executions.size in 3..5, "${agent.runtime.executions.size}")
    }

    @Test
    fun `bytes that arrive during a run belong to the next request`() {
        val agent = agent()
        val client = agent.greeted()
        val handle = client.load("a")
        val next = encodeHeader(mapOf("id" to 77, "op" to "state"))
        agent.runtime.onExecute = { if (agent.runtime.executions.size == 1) client.send(next) }
        assertTrue("error" !in client.ask("run", run(listOf(handle), List(100) { listOf(0) })).first)
        assertEquals(77L, checkNotNull(client.receive()).first["id"])
    }

    @Test
    fun `a device that is not ready is not measured, before or after, unless allowed`() {
        val agent = agent()
        val client = agent.greeted()
        val request = run(listOf(client.load("a")), listOf(listOf(0)))
        val ready = DeviceReading(uptimeNs = 1, battery = Battery(80.0, false, null))
        val low = ready.copy(battery = Battery(14.0, false, null))
        agent.readings = listOf(low)
        assertEquals("not_ready", client.refusal("run", request))
        assertTrue(agent.runtime.executions.isEmpty())
        agent.readings = listOf(ready, ready.copy(thermalState = ThermalState.SERIOUS))
        assertEquals("not_ready", client.refusal("run", request))
        agent.allowed = setOf(Caveat.LOW_BATTERY)
        agent.readings = listOf(low)
        val reply = client.ask("run", request).first
        for (state in listOf("state_before", "state_after")) {
            assertEquals(listOf("low_battery"), (reply[state] as Map<*, *>)["caveats"])
        }
        agent.readings = listOf(ready)
        assertEquals(emptyList<Any>(), (client.ask("state").first["state"] as Map<*, *>)["caveats"])
    }
}
