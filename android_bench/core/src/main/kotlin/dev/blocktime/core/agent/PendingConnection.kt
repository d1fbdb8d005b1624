package dev.blocktime.core.agent

import dev.blocktime.core.wire.Frame
import dev.blocktime.core.wire.FrameException
import dev.blocktime.core.wire.LINGER_BYTES
import dev.blocktime.core.wire.OpError
import dev.blocktime.core.wire.readFrame
import java.io.ByteArrayInputStream
import java.nio.ByteBuffer
import java.nio.channels.SocketChannel

/** What a stranger can make the agent keep and parse. A hello with the longest token that there may be fits. */
private const val MAX_HELLO_BYTES = 4096

private const val PREFIX_BYTES = 4
private const val DROP_BYTES = 1 shl 16

/**
 * One who waits until [deadlineNs]: for its hello to arrive, then ([hello] is there) for the place, or ([isLeaving]) to be
 * gone. [channel] does not block.
 */
internal class PendingConnection(
    val channel: SocketChannel,
    var deadlineNs: Long,
) {
    private var received = ByteBuffer.allocate(PREFIX_BYTES)
    private var leftBytes = LINGER_BYTES

    var hello: Frame? = null
        private set
    var refusal: OpError? = null
    var isLeaving = false

    val holdsToken get() = hello != null && refusal == null && !isLeaving

    /** Takes in what has arrived of the hello, and nothing behind it; false where the client has left without a word. */
    fun read(): Boolean {
        if (channel.read(received) < 0) {
            if (received.position() == 0) return false
            throw FrameException("truncated", "the stream ended inside the first frame")
        }
        if (received.position() == PREFIX_BYTES && received.limit() == PREFIX_BYTES) growToHeader()
        if (!received.hasRemaining()) hello = parsed(received.array())
        return true
    }

    /** Drops what has arrived; false where no more is to be waited for. */
    fun drop(): Boolean {
        val count = channel.read(ByteBuffer.allocate(DROP_BYTES))
        leftBytes -= count
        return count >= 0 && leftBytes > 0
    }

    private fun growToHeader() {
        val headerBytes = received.getInt(0).toLong() and 0xffff_ffffL
        if (headerBytes > MAX_HELLO_BYTES) {
            throw FrameException(
                "header_too_large",
                "a first header of $headerBytes bytes is over $MAX_HELLO_BYTES",
            )
        }
        received = ByteBuffer.allocate(PREFIX_BYTES + headerBytes.toInt()).put(received.array())
    }

    private fun parsed(bytes: ByteArray): Frame? {
        val stream = ByteArrayInputStream(bytes)
        return readFrame { target -> stream.read(target, 0, target.size).coerceAtLeast(0) }
    }
}
