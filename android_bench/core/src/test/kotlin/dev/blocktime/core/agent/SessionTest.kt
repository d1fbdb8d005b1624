package dev.blocktime.core.agent

import dev.blocktime.core.wire.encodeHeader
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** Requests and their answers over real sockets, but those that execute models. */
class SessionTest : AgentTest() {
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
}
