package dev.blocktime.core.wire

import java.io.Closeable
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.SelectionKey
import java.nio.channels.Selector
import java.nio.channels.SocketChannel

/** How long and how much is read after the last answer, so that the answer arrives. */
const val LINGER_MS = 1_000L
const val LINGER_BYTES = 4L shl 20

/** The connection broke: the client is gone, or the server was stopped. */
class ConnectionLost(
    cause: IOException,
) : IOException(cause)

/**
 * A client's socket with time limits on reading and writing, which blocking sockets have not for writing, and with the
 * question whether the client is still there. [stallMs]: how long a frame may stand still.
 */
class Connection(
    private val channel: SocketChannel,
    private val stallMs: Long,
) : Closeable,
    ByteSource {
    private val selector = Selector.open()
    private val key: SelectionKey
    private val ahead = ByteBuffer.allocate(1).apply { flip() }

    init {
        channel.configureBlocking(false)
        key = channel.register(selector, SelectionKey.OP_READ)
    }

    /** Waits for a byte or the end of the stream. */
    fun awaitInput() {
        if (!ahead.hasRemaining()) await(SelectionKey.OP_READ, 0)
    }

    /**
     * Fills [target]. Throws FrameException `timeout` where the stream stands still for longer than `stallMs`, and
     * [ConnectionLost].
     */
    override fun read(target: ByteArray): Int {
        val buffer = ByteBuffer.wrap(target)
        if (buffer.hasRemaining() && ahead.hasRemaining()) buffer.put(ahead)
        while (buffer.hasRemaining()) {
            val count = transfer { channel.read(buffer) }
            if (count < 0) break
            if (count == 0 && !await(SelectionKey.OP_READ, stallMs)) throw stoodStill()
        }
        return buffer.position()
    }

    /**
     * Sends all of [data]. Throws FrameException `timeout` where the client takes none of it for longer than `stallMs`, and
     * [ConnectionLost].
     */
    fun write(vararg data: ByteArray) {
        for (buffer in data.map(ByteBuffer::wrap)) {
            while (buffer.hasRemaining()) {
                val count = transfer { channel.write(buffer) }
                if (count == 0 && !await(SelectionKey.OP_WRITE, stallMs)) throw stoodStill()
            }
        }
    }

    /** Whether the client's side of the stream is open, without waiting. */
    fun isClientThere(): Boolean {
        if (ahead.hasRemaining()) return true
        ahead.clear()
        val there =
            try {
                channel.read(ahead) >= 0
            } catch (_: IOException) {
                false
            }
        ahead.flip()
        return there
    }

    /**
     * Ends the sending side and reads on for a bounded time and size: a close with input unread makes the kernel reset
     * the connection, and the client may lose the last answer.
     */
    fun finish() {
        try {
            channel.socket().shutdownOutput()
            val deadlineNs = System.nanoTime() + LINGER_MS * 1_000_000
            val dropped = ByteBuffer.allocate(1 shl 16)
            var leftBytes = LINGER_BYTES
            while (leftBytes > 0) {
                dropped.clear()
                val count = channel.read(dropped)
                if (count < 0) return
                leftBytes -= count
                val leftMs = (deadlineNs - System.nanoTime()) / 1_000_000
                if (leftMs <= 0 || (count == 0 && !await(SelectionKey.OP_READ, leftMs))) return
            }
        } catch (_: IOException) {
            return
        }
    }

    override fun close() {
        selector.close()
        channel.close()
    }

    private inline fun transfer(action: () -> Int): Int =
        try {
            action()
        } catch (error: IOException) {
            throw ConnectionLost(error)
        }

    private fun await(
        operation: Int,
        timeoutMs: Long,
    ): Boolean {
        key.interestOps(operation)
        selector.selectedKeys().clear()
        return selector.select(timeoutMs) > 0
    }

    private fun stoodStill() = FrameException("timeout", "a frame stood still for ${stallMs / 1000} s")
}
