package dev.blocktime.core.agent

import dev.blocktime.core.wire.Frame
import dev.blocktime.core.wire.FrameException
import dev.blocktime.core.wire.LINGER_MS
import dev.blocktime.core.wire.OpError
import dev.blocktime.core.wire.encodeHeader
import dev.blocktime.core.wire.idOf
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.SelectionKey
import java.nio.channels.Selector
import java.nio.channels.ServerSocketChannel
import java.nio.channels.SocketChannel
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.atomic.AtomicBoolean

/** Whoever comes when so many wait drives out the one that has waited longest without the token. */
private const val MAX_WAITING = 64

/** After a failure to accept a connection that no one who waits could be dropped for. */
private const val ACCEPT_RETRY_MS = 100L

private const val BUSY = "another client is connected; wait for it to end, or stop it"

/** A connection whose [hello] is right and was not yet answered. */
internal class Client(
    val channel: SocketChannel,
    val hello: Frame,
)

/**
 * Accepts on [listener], which it closes, and lets those who connect wait beside each other until one has shown the
 * token and the place is free. One thread for all, which only sleeps unless somebody calls: it takes no time from a
 * timing loop else.
 */
internal class Reception(
    private val config: AgentConfig,
    private val listener: ServerSocketChannel,
) {
    private val selector = Selector.open()
    private val visitors = LinkedHashSet<Visitor>()
    private val clients = LinkedBlockingQueue<Client>()
    private val taken = AtomicBoolean()

    @Volatile private var stopped = false

    /** Who is served next, waited for. Free its place afterwards. */
    fun nextClient(): Client = clients.take()

    /** The client that was given is gone. For any thread. */
    fun freePlace() {
        taken.set(false)
        selector.wakeup()
    }

    /** Ends [receive], from any thread; those who wait are dropped and the port is closed. */
    fun stop() {
        stopped = true
        selector.wakeup()
    }

    /** Receives until stopped. */
    fun receive() {
        try {
            listener.configureBlocking(false)
            listener.register(selector, SelectionKey.OP_ACCEPT)
            while (!stopped) turn()
        } finally {
            visitors.toList().forEach(::drop)
            clients.forEach { it.channel.close() }
            close()
        }
    }

    /** Closes the port, where [receive] was not called. */
    fun close() {
        listener.close()
        selector.close()
    }

    /** Waits until something happens, and sees to it. */
    private fun turn() {
        val nextNs = visitors.minOfOrNull { it.deadlineNs - System.nanoTime() }
        selector.select(nextNs?.let { (it / 1_000_000 + 1).coerceAtLeast(1) } ?: 0)
        val selected = selector.selectedKeys().toList()
        selector.selectedKeys().clear()
        for (key in selected) {
            val visitor = key.attachment() as Visitor?
            if (visitor == null) {
                accept()
            } else if (visitor in visitors) {
                hear(visitor)
            }
        }
        sendAwayLate()
        seat()
    }

    private fun accept() {
        val channel =
            try {
                listener.accept() ?: return
            } catch (_: IOException) {
                if (!dropOldest()) Thread.sleep(ACCEPT_RETRY_MS)
                return
            }
        try {
            channel.configureBlocking(false)
            channel.socket().tcpNoDelay = true
            if (visitors.size >= MAX_WAITING) dropOldest()
            val visitor = Visitor(channel, inMs(config.timeouts.helloMs))
            visitors += visitor
            channel.register(selector, SelectionKey.OP_READ, visitor)
        } catch (_: IOException) {
            channel.close()
        }
    }

    /** Drops who has waited longest, those who hold the token last; false where nobody waits. */
    private fun dropOldest(): Boolean {
        val oldest = visitors.firstOrNull { !it.holdsToken } ?: visitors.firstOrNull() ?: return false
        drop(oldest)
        return true
    }

    private fun drop(visitor: Visitor) {
        visitors -= visitor
        visitor.channel.close()
    }

    private fun hear(visitor: Visitor) {
        try {
            val isThere = if (visitor.isLeaving) visitor.drop() else visitor.read()
            if (!isThere) return drop(visitor)
            val hello = visitor.hello
            if (hello != null && !visitor.isLeaving) {
                visitor.refusal = refusalOf(readHello(hello.header), config.token())
                visitor.deadlineNs = inMs(config.timeouts.handoverMs)
                visitor.channel.keyFor(selector).interestOps(0)
            }
        } catch (error: FrameException) {
            refuse(visitor, error.code, error.message)
        } catch (error: OpError) {
            refuse(visitor, error)
        } catch (_: IOException) {
            drop(visitor)
        }
    }

    private fun sendAwayLate() {
        val now = System.nanoTime()
        for (visitor in visitors.filter { it.deadlineNs - now <= 0 }) {
            when {
                visitor.isLeaving -> {
                    drop(visitor)
                }

                visitor.hello == null -> {
                    refuse(visitor, "timeout", "no hello within ${config.timeouts.helloMs / 1000} s")
                }

                taken.get() -> {
                    refuse(visitor, "busy", BUSY)
                }
            }
        }
    }

    /** Gives the place, where it is free, to the first who holds the token; tells others why not to them. */
    private fun seat() {
        for (visitor in visitors.filter { it.hello != null && !it.isLeaving }) {
            if (taken.get()) return
            visitor.refusal?.let { refuse(visitor, it) } ?: give(visitor)
        }
    }

    private fun give(visitor: Visitor) {
        taken.set(true)
        visitors -= visitor
        visitor.channel.keyFor(selector).cancel()
        // Else the channel would stay with this selector, and be open, until the next one calls.
        selector.selectNow()
        clients.put(Client(visitor.channel, checkNotNull(visitor.hello)))
    }

    /** Nothing is told of strangers while a client may be measuring. */
    private fun refuse(
        visitor: Visitor,
        error: OpError,
    ) {
        if (!taken.get()) config.listener.onRefusal(error.code, error.message)
        refuse(visitor, error.code, error.message)
    }

    /** Answers with an error that closes, and waits a little for the visitor to have read it. */
    private fun refuse(
        visitor: Visitor,
        code: String,
        message: String,
    ) {
        visitor.isLeaving = true
        visitor.deadlineNs = inMs(LINGER_MS)
        try {
            val answer = encodeHeader(errorReply(visitor.hello?.header?.let(::idOf), code, message))
            visitor.channel.write(ByteBuffer.wrap(answer))
            visitor.channel.socket().shutdownOutput()
            visitor.channel.keyFor(selector).interestOps(SelectionKey.OP_READ)
        } catch (_: IOException) {
            drop(visitor)
        }
    }

    private fun inMs(ms: Long) = System.nanoTime() + ms * 1_000_000
}
