package dev.blocktime.core.bundle

import dev.blocktime.core.wire.FrameException
import dev.blocktime.core.wire.encodeHeader
import dev.blocktime.core.wire.readFrame
import java.io.ByteArrayOutputStream
import java.io.Closeable
import java.io.IOException
import java.net.InetAddress
import java.net.Socket

/** An agent's answer without its id. */
class Answer(
    val header: Map<String, Any?>,
    val payload: ByteArray,
) {
    val error get() = header["error"] as Map<*, *>?
}

/** The client of the agent on [port] of this machine's loopback: requests out, replies in, as they are. */
class Loopback(
    port: Int,
) : Closeable {
    private val socket = Socket(InetAddress.getByAddress("localhost", byteArrayOf(127, 0, 0, 1)), port)
    private val input = socket.getInputStream().buffered()
    private var nextId = 1L

    /** The answer to a request, an error too. Throws IOException where the agent is gone. */
    fun ask(
        fields: Map<String, Any?>,
        payloadBytes: Int = 0,
        payload: Sequence<ByteArray> = emptySequence(),
    ): Answer {
        val output = socket.getOutputStream()
        output.write(encodeHeader(mapOf("id" to nextId++) + fields, payloadBytes))
        payload.forEach(output::write)
        output.flush()
        return try {
            receive()
        } catch (error: FrameException) {
            throw IOException("the agent was lost (${error.message}); run the bundle again", error)
        }
    }

    /** As [ask]; throws IOException with the message of an error. */
    fun demand(fields: Map<String, Any?>): Map<String, Any?> {
        val answer = ask(fields)
        answer.error?.let { throw IOException("${it["code"]}: ${it["message"]}") }
        return answer.header
    }

    override fun close() = socket.close()

    private fun receive(): Answer {
        val frame = readFrame(::fill) ?: throw IOException("the agent closed the connection; run the bundle again")
        val body = ByteArrayOutputStream()
        frame.payload.chunks().forEach { body.write(it, 0, it.size) }
        return Answer(frame.header - "id", body.toByteArray())
    }

    private fun fill(target: ByteArray): Int {
        var filled = 0
        while (filled < target.size) {
            val count = input.read(target, filled, target.size - filled)
            if (count < 0) break
            filled += count
        }
        return filled
    }
}
