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

/**
 * Whoever comes when so many wait drives out the one that has waited longest without the token. So many must come
 * between a client's connection and its hello to drive it out; each takes a descriptor, of which an app has 1,024 at
 * least.
 */
internal const val MAX_WAITING = 512

/** How many are accepted before those that wait are read again: a client behind hundreds is reached soon. */
private const val ACCEPTED_AT_ONCE = 64

/** After a failure to accept a connection that no one who waits could be dropped for. */
private const val ACCEPT_RETRY_MS = 100L

private const val BUSY = "another client is connected; wait for it to end, or stop it"

/** A connection whose [hello] is right and was not yet answered. */
internal class Client(
    val channel: SocketChannel,
    val hello: Frame,
)

/**
 * Accepts on [listener], which it closes, and queues connections until one has shown the
 * token and the place is free. One thread for all, which only sleeps unless somebody calls: it takes no time from a
 * timing loop else.
 */
internal class ConnectionQueue(
    private val config: AgentConfig,
    private val listener: ServerSocketChannel,
) {
    private val selector = Selector.open()
    private val waiting = LinkedHashSet<PendingConnection>()
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
            waiting.toList().forEach(::drop)
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
        val nextNs = waiting.minOfOrNull { it.deadlineNs - System.nanoTime() }
        selector.select(nextNs?.let { (it / 1_000_000 + 1).coerceAtLeast(1) } ?: 0)
        // New connections come last, so that none drives out a client whose hello has already arrived.
        val selected = selector.selectedKeys().sortedBy { it.attachment() == null }
        selector.selectedKeys().clear()
        for (key in selected) {
            val pending = key.attachment() as PendingConnection?
            if (pending == null) {
                var left = ACCEPTED_AT_ONCE
                while (left > 0 && accept()) left--
            } else if (pending in waiting) {
                hear(pending)
            }
        }
        sendAwayLate()
        seat()
    }

    /** False where nobody has called. */
    private fun accept(): Boolean {
        val channel =
            try {
                listener.accept() ?: return false
            } catch (_: IOException) {
                if (!dropOldest()) Thread.sleep(ACCEPT_RETRY_MS)
                return false
            }
        try {
            channel.configureBlocking(false)
            channel.socket().tcpNoDelay = true
            if (waiting.size >= MAX_WAITING) dropOldest()
            val pending = PendingConnection(channel, inMs(config.timeouts.helloMs))
            waiting += pending
            channel.register(selector, SelectionKey.OP_READ, pending)
        } catch (_: IOException) {
            channel.close()
        }
        return true
    }

    /** Drops who has waited longest, those who hold the token last; false where nobody waits. */
    private fun dropOldest(): Boolean {
        val oldest = waiting.firstOrNull { !it.holdsToken } ?: waiting.firstOrNull() ?: return false
        drop(oldest)
        return true
    }

    private fun drop(pending: PendingConnection) {
        waiting -= pending
        pending.channel.close()
    }

    private fun hear(pending: PendingConnection) {
        try {
            val isThere = if (pending.isLeaving) pending.drop() else pending.read()
            if (!isThere) return drop(pending)
            val hello = pending.hello
            if (hello != null && !pending.isLeaving) {
                pending.refusal = refusalOf(readHello(hello.header), config.token())
                pending.deadlineNs = inMs(config.timeouts.handoverMs)
                pending.channel.keyFor(selector).interestOps(0)
            }
        } catch (error: FrameException) {
            refuse(pending, error.code, error.message)
        } catch (error: OpError) {
            refuse(pending, error)
        } catch (_: IOException) {
            drop(pending)
        }
    }

    private fun sendAwayLate() {
        val now = System.nanoTime()
        for (pending in waiting.filter { it.deadlineNs - now <= 0 }) {
            when {
                pending.isLeaving -> {
                    drop(pending)
                }

                pending.hello == null -> {
                    refuse(pending, "timeout", "no hello within ${config.timeouts.helloMs / 1000} s")
                }

                taken.get() -> {
                    refuse(pending, "busy", BUSY)
                }
            }
        }
    }

    /** Admits the first client with the token if no other is served; answers the others with the reason. */
    private fun seat() {
        for (pending in waiting.filter { it.hello != null && !it.isLeaving }) {
            if (taken.get()) return
            pending.refusal?.let { refuse(pending, it) } ?: give(pending)
        }
    }

    private fun give(pending: PendingConnection) {
        taken.set(true)
        waiting -= pending
        pending.channel.keyFor(selector).cancel()
        // Else the channel would stay with this selector, and be open, until the next one calls.
        selector.selectNow()
        clients.put(Client(pending.channel, checkNotNull(pending.hello)))
    }

    /** Strangers are not reported while a client may be measuring. */
    private fun refuse(
        pending: PendingConnection,
        error: OpError,
    ) {
        if (!taken.get()) config.listener.onRefusal(error.code, error.message)
        refuse(pending, error.code, error.message)
    }

    /** Answers with an error that closes, and waits a little for the client to have read it. */
    private fun refuse(
        pending: PendingConnection,
        code: String,
        message: String,
    ) {
        pending.isLeaving = true
        pending.deadlineNs = inMs(LINGER_MS)
        try {
            val answer = encodeHeader(errorReply(pending.hello?.header?.let(::idOf), code, message))
            pending.channel.write(ByteBuffer.wrap(answer))
            pending.channel.socket().shutdownOutput()
            pending.channel.keyFor(selector).interestOps(SelectionKey.OP_READ)
        } catch (_: IOException) {
            drop(pending)
        }
    }

    private fun inMs(ms: Long) = System.nanoTime() + ms * 1_000_000
}
