package dev.blocktime.core.agent

import dev.blocktime.core.wire.encodeHeader
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.IOException

private const val STRANGERS = MAX_WAITING + 36

/** Nothing of these ends by itself while a test runs. */
private val PATIENT = Timeouts(helloMs = 600_000, frameMs = 600_000, handoverMs = 600_000)

/** Connections that wait while a client is served. */
class ConnectionQueueTest {
    @TempDir lateinit var folder: File

    private fun TestClient.isClosed(): Boolean =
        try {
            socket.getInputStream().read() < 0
        } catch (_: IOException) {
            true
        }

    @Test
    fun `the strangers that have waited longest are driven out, who holds the token is not`() {
        TestAgent(folder, PATIENT).use { agent ->
            val first = agent.greeted()
            val next = agent.connect()
            next.send(encodeHeader(mapOf("id" to 7, "op" to "hello", "protocol" to 1, "token" to TOKEN)))
            val strangers = List(STRANGERS) { agent.connect() }
            assertEquals(
                List(STRANGERS - MAX_WAITING + 1) {
                    true
                },
                strangers.take(STRANGERS - MAX_WAITING + 1).map { it.isClosed() },
            )
            first.ask("bye")
            val reply = checkNotNull(next.receive()).first
            assertEquals(7L, reply["id"])
            assertFalse("error" in reply)
            assertEquals(
                0,
                strangers
                    .last()
                    .socket
                    .getInputStream()
                    .available(),
            )
            (strangers + first + next).forEach(TestClient::close)
        }
    }

    @Test
    fun `a hello may come in pieces, and nothing behind it is lost`() {
        TestAgent(folder, PATIENT).use { agent ->
            agent.connect().use { client ->
                val hello = encodeHeader(mapOf("id" to 1, "op" to "hello", "protocol" to 1, "token" to TOKEN))
                val bytes = hello + encodeHeader(mapOf("id" to 2, "op" to "state"))
                bytes.forEach { client.send(byteArrayOf(it)) }
                assertEquals(listOf(1L, 2L), List(2) { checkNotNull(client.receive()).first["id"] })
            }
        }
    }

    @Test
    fun `a hello of more than 4096 bytes is refused before it is there`() {
        TestAgent(folder, PATIENT).use { agent ->
            agent.connect().use { client ->
                client.send(byteArrayOf(0, 0, 16, 1))
                assertEquals("header_too_large", errorCode(checkNotNull(client.receive()).first))
                assertNull(client.receive())
            }
        }
    }
}
