package dev.blocktime.core.agent

import dev.blocktime.core.wire.encodeHeader
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.io.IOException

/** Who is served, who is refused, and who loses the place, over real sockets. */
class ConnectionTest : AgentTest() {
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
    fun `a port in use is told`() {
        val port = agent().port
        val error = assertThrows(IOException::class.java) { TestAgent(folder, port = port) }
        assertTrue("port $port is in use; choose another" in error.message!!, error.message)
    }
}
