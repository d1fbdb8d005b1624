package dev.blocktime.core.agent

import dev.blocktime.core.wire.Connection
import dev.blocktime.core.wire.FrameException
import dev.blocktime.core.wire.encodeHeader
import dev.blocktime.core.wire.errorReply
import java.io.IOException
import java.net.BindException
import java.net.InetAddress
import java.net.InetSocketAddress
import java.nio.channels.ClosedChannelException
import java.nio.channels.ServerSocketChannel
import java.nio.channels.SocketChannel
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.Semaphore
import java.util.concurrent.TimeUnit

/** No connection waits behind more than these: the rest are refused by the system. */
private const val BACKLOG = 4

/** How long [AgentServer.stop] waits for a model call in progress, which nothing can interrupt. */
private const val STOP_WAIT_MS = 5_000L

/** After a failure to accept a connection, such as too many open files. */
private const val ACCEPT_RETRY_MS = 100L

private const val BUSY = "another client is connected; wait for it to end, or stop it"

/**
 * Listens on the loopback and serves one client at a time.
 *
 * Sessions run in one thread; the accepting thread only sleeps, accepts and refuses. It therefore takes no time from a
 * timing loop unless a second client calls during one. Start and stop are called from one thread, each once.
 */
class AgentServer(
    private val config: AgentConfig,
) {
    private val listener = ServerSocketChannel.open()
    private val place = Semaphore(1)
    private val clients = LinkedBlockingQueue<SocketChannel>()
    private val accepting = Thread(::accept, "blocktime-accept").apply { isDaemon = true }
    private val serving = Thread(::serve, "blocktime-agent").apply { isDaemon = true }

    @Volatile private var stopped = false

    /** Opens the port and returns it; serves in threads of its own. Throws IOException with a line for people. */
    fun start(): Int {
        val loopback = InetAddress.getByAddress("localhost", byteArrayOf(127, 0, 0, 1))
        try {
            listener.socket().reuseAddress = true
            listener.socket().bind(InetSocketAddress(loopback, config.port), BACKLOG)
        } catch (error: IOException) {
            listener.close()
            val reason = if (error is BindException) "is in use" else "can't be used: ${error.message}"
            throw IOException("port ${config.port} $reason; choose another, or 0 to take a free one", error)
        }
        serving.start()
        accepting.start()
        return listener.socket().localPort
    }

    /** Closes the port and the connection, and waits a while for a model call in progress to end. */
    fun stop() {
        stopped = true
        listener.close()
        serving.interrupt()
        serving.join(STOP_WAIT_MS)
    }

    private fun accept() {
        while (true) {
            val channel =
                try {
                    listener.accept()
                } catch (_: ClosedChannelException) {
                    return
                } catch (_: IOException) {
                    Thread.sleep(ACCEPT_RETRY_MS)
                    continue
                }
            try {
                channel.socket().tcpNoDelay = true
                if (place.tryAcquire(config.timeouts.handoverMs, TimeUnit.MILLISECONDS)) {
                    clients.put(channel)
                } else {
                    refuse(channel)
                }
            } catch (_: IOException) {
                channel.close()
            } catch (_: FrameException) {
                channel.close()
            }
        }
    }

    private fun serve() {
        while (!stopped) {
            try {
                val channel = clients.take()
                Connection(channel, config.timeouts.frameMs).use { Session(config, it).serve() }
            } catch (_: InterruptedException) {
                return
            } catch (_: IOException) {
                continue
            } finally {
                place.release()
            }
        }
    }

    private fun refuse(channel: SocketChannel) {
        Connection(channel, config.timeouts.handoverMs).use {
            it.write(encodeHeader(errorReply(null, "busy", BUSY)))
            it.finish()
        }
    }
}
