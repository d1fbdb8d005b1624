package dev.blocktime.core.agent

import dev.blocktime.core.device.Battery
import dev.blocktime.core.device.Caveat
import dev.blocktime.core.device.DeviceReading
import dev.blocktime.core.device.ThermalState
import dev.blocktime.core.wire.encodeHeader
import org.junit.jupiter.api.AfterEach
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder

private val PAIR_FIELDS = listOf(mapOf("dtype" to "float32", "shape" to listOf(2)))

private fun pair(
    first: Float,
    second: Float,
): ByteArray =
    ByteBuffer
        .allocate(8)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putFloat(first)
        .putFloat(second)
        .array()

private fun run(
    handles: List<Long>,
    order: List<List<Int>>,
    warmup: Int = 0,
) = mapOf("handles" to handles, "order" to order, "warmup" to warmup)

/** The agent's side of the protocol over real sockets, with models made of arithmetic. */
class SessionTest {
    @TempDir lateinit var folder: File
    private val agents = mutableListOf<TestAgent>()

    private fun agent(
        timeouts: Timeouts = Timeouts(),
        token: String? = TOKEN,
    ) = TestAgent(folder, timeouts, token).also(agents::add)

    @AfterEach
    fun stop() = agents.forEach(TestAgent::close)

    @Test
    fun `greeting tells agent, device and runtimes, as often as asked`() {
        val client = agent().greeted()
        val hello = client.greet()
        assertEquals(1L, hello["protocol"])
        assertEquals(mapOf("name" to "test", "version" to "1"), hello["agent"])
        val device = hello["device"] as Map<*, *>
        assertEquals(listOf("Pixel 8", null, 9L, false), listOf("model", "soc", "cores", "simulated").map(device::get))
        assertEquals(setOf("doubler"), (hello["runtimes"] as Map<*, *>).keys)
    }

    @Test
    fun `who can't greet is refused and closed`() {
        val agent = agent()
        val hello = mapOf("id" to 1, "op" to "hello", "protocol" to 1)
        for ((request, code) in listOf(
            hello + ("token" to "wrong") to "unauthorized",
            hello + ("token" to "righ") to "unauthorized",
            hello + mapOf("token" to TOKEN, "protocol" to 2) to "protocol_version",
            hello + mapOf("token" to "wrong", "protocol" to 2) to "unauthorized",
            hello + mapOf("token" to TOKEN, "more" to 1) to "bad_request",
            hello to "bad_request",
            mapOf("id" to 1, "op" to "state") to "unauthorized",
            mapOf("id" to 1, "op" to "fly") to "unauthorized",
            mapOf("id" to 1) to "unauthorized",
        )) {
            agent.connect().use { client ->
                client.send(encodeHeader(request))
                val reply = checkNotNull(client.receive()).first
                assertEquals(1L, reply["id"])
                assertEquals(code, errorCode(reply), "$request")
                assertNull(client.receive())
            }
        }
        agent.greeted().close()
    }

    @Test
    fun `without a token nobody is served`() {
        for (token in listOf(null, "")) {
            agent(token = token).connect().use { assertEquals("unauthorized", errorCode(it.greet("x"))) }
            agents.last().connect().use { assertEquals("bad_request", errorCode(it.greet(""))) }
        }
    }

    @Test
    fun `a second client is told busy, a third is served when the first is gone`() {
        val agent = agent(Timeouts(handoverMs = 50))
        val first = agent.greeted()
        for (token in listOf(TOKEN, "wrong")) {
            agent.connect().use { second ->
                assertEquals("busy", errorCode(second.greet(token)))
                assertNull(second.receive())
            }
        }
        first.ask("state")
        first.close()
        assertTrue("device" in agent.greeted().greet())
    }

    @Test
    fun `silence before hello, and a frame that stands still, end in timeout`() {
        val agent = agent(Timeouts(helloMs = 50, frameMs = 50))
        assertEquals("timeout", errorCode(checkNotNull(agent.connect().receive()).first))
        agent.greeted().use { client ->
            client.send(byteArrayOf(0, 0))
            assertEquals("timeout", errorCode(checkNotNull(client.receive()).first))
            assertNull(client.receive())
        }
        agent.greeted().use { client ->
            client.send(encodeHeader(mapOf("id" to 2, "op" to "have", "sha256" to "0".repeat(64)), 5))
            assertEquals("timeout", errorCode(checkNotNull(client.receive()).first))
        }
    }

    @Test
    fun `a client that takes no answer does not hold the place`() {
        val agent = agent(Timeouts(frameMs = 100))
        val stuck = agent.greeted()
        val request = encodeHeader(mapOf("id" to 9, "op" to "fly"))
        val flood = ByteArray(1 shl 18).let { chunk -> ByteArray(chunk.size) { request[it % request.size] } }
        try {
            repeat(200) { stuck.send(flood) }
        } catch (_: IOException) {
            // The agent has closed, as it should.
        }
        agent.greeted().use { it.ask("state") }
    }

    @Test
    fun `requests sent ahead are answered before the end of the stream`() {
        val client = agent().greeted()
        repeat(3) { client.send(encodeHeader(mapOf("id" to 10 + it, "op" to "state"))) }
        client.socket.shutdownOutput()
        assertEquals(listOf(10L, 11L, 12L), List(3) { checkNotNull(client.receive()).first["id"] })
        assertNull(client.receive())
    }

    @Test
    fun `bye is answered and closes`() {
        val client = agent().greeted()
        assertEquals(setOf("id"), client.ask("bye").first.keys)
        assertNull(client.receive())
    }

    @Test
    fun `garbage is answered and closed`() {
        val agent = agent()
        for ((garbage, code) in listOf(
            "GET / HTTP/1.1\r\n\r\n".toByteArray() to "header_too_large",
            byteArrayOf(0, 0, 0, 3) + "abc".toByteArray() to "bad_header",
            byteArrayOf(0, 0, 0, 4) + "null".toByteArray() to "bad_header",
            byteArrayOf(0, 0, 0, 9) + "{}".toByteArray() to "truncated",
        )) {
            agent.connect().use { client ->
                client.send(garbage)
                client.socket.shutdownOutput()
                val reply = checkNotNull(client.receive()).first
                assertNull(reply["id"])
                assertEquals(code, errorCode(reply))
                assertNull(client.receive())
            }
        }
    }

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
    fun `each failure has its code and the connection goes on`() {
        val agent = agent()
        val client = agent.greeted()
        val sha256 = client.put("a")
        val load = mapOf("sha256" to sha256, "runtime" to "doubler")
        val handle = client.load("a")
        val failing = client.load("fail")
        val check = mapOf("handle" to handle, "inputs" to PAIR_FIELDS)
        assertEquals("unknown_model", client.refusal("load", load + ("sha256" to "0".repeat(64))))
        assertEquals("unknown_runtime", client.refusal("load", load + ("runtime" to "nosuch")))
        assertEquals("bad_option", client.refusal("load", load + ("options" to mapOf("threads" to 2))))
        assertEquals("bad_request", client.refusal("load", load + ("options" to mapOf("threads" to 0.5))))
        assertEquals("internal", client.refusal("load", load + ("sha256" to client.put("explode"))))
        assertEquals("out_of_memory", client.refusal("load", load + ("sha256" to client.put("hungry"))))
        assertEquals("hash_mismatch", client.refusal("put", mapOf("sha256" to "0".repeat(64)), byteArrayOf(1)))
        assertEquals("bad_request", client.refusal("put", mapOf("sha256" to "0".repeat(64))))
        val large = ByteArray(STORE_BYTES.toInt() + 1)
        assertEquals("storage_full", client.refusal("put", mapOf("sha256" to sha256(large)), large))
        assertEquals("unknown_handle", client.refusal("unload", mapOf("handle" to 99)))
        assertEquals("bad_input", client.refusal("check", check, ByteArray(4)))
        assertEquals("bad_input", client.refusal("check", check + ("inputs" to emptyList<Any>()), ByteArray(0)))
        val huge = listOf(mapOf("dtype" to "float32", "shape" to List(8) { Int.MAX_VALUE }))
        assertEquals("bad_input", client.refusal("check", check + ("inputs" to huge), ByteArray(8)))
        assertEquals("run_failed", client.refusal("check", check + ("handle" to failing), ByteArray(8)))
        assertEquals("run_failed", client.refusal("run", run(listOf(failing), listOf(listOf(0)))))
        assertEquals("unknown_op", client.refusal("fly", payload = ByteArray(300_000)))
        assertEquals("bad_request", client.refusal("state", mapOf("more" to 1)))
        assertEquals("bad_request", client.refusal("state", payload = ByteArray(7)))
        client.ask("unload", mapOf("handle" to handle))
        assertEquals("unknown_handle", client.refusal("unload", mapOf("handle" to handle)))
        assertEquals(listOf("a"), agent.runtime.closed)
        client.ask("state")
    }

    @Test
    fun `a request without a usable id is answered with null`() {
        val client = agent().greeted()
        for (id in listOf(-1, "1", true, 0.5, 1L shl 53, null)) {
            client.send(encodeHeader(mapOf("id" to id, "op" to "state")))
            val reply = checkNotNull(client.receive()).first
            assertNull(reply["id"])
            assertEquals("bad_request", errorCode(reply))
        }
    }

    @Test
    fun `no more than 256 models and no handle twice`() {
        val client = agent().greeted()
        val load = mapOf("sha256" to client.put("a"), "runtime" to "doubler")
        val handles = List(256) { client.ask("load", load).first["handle"] }
        assertEquals("too_many_handles", client.refusal("load", load))
        client.ask("unload", mapOf("handle" to handles[0]))
        assertTrue(client.ask("load", load).first["handle"] !in handles)
    }

    @Test
    fun `a loaded model is not evicted`() {
        val client = agent().greeted()
        val loaded = "a".repeat(600)
        client.load(loaded)
        val other = ByteArray(600)
        assertEquals("storage_full", client.refusal("put", mapOf("sha256" to sha256(other)), other))
        val present = client.ask("have", mapOf("sha256" to sha256(loaded.toByteArray()))).first["present"]
        assertEquals(true, present)
    }

    @Test
    fun `what a vanished client loaded is freed`() {
        val agent = agent()
        agent.greeted().apply { load("a") }.close()
        agent.greeted().use { assertEquals(listOf("a"), agent.runtime.closed) }
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

    @Test
    fun `the listener hears of clients, work and refusals`() {
        val agent = agent()
        agent.greeted().use {
            it.refusal("fly")
            it.ask("bye")
        }
        agent.greeted().close()
        val expected = listOf("hello", "connected", "refused unknown_op", "bye", "gone")
        assertEquals(expected, agent.listener.events.take(expected.size))
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
    fun `a port in use is told`() {
        val port = agent().port
        val error = assertThrows(IOException::class.java) { TestAgent(folder, port = port) }
        assertTrue("port $port is in use; choose another" in error.message!!, error.message)
    }
}
