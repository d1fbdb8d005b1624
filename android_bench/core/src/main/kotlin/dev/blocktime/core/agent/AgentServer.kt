package dev.blocktime.core.agent

import dev.blocktime.core.wire.Connection
import java.io.IOException
import java.net.BindException
import java.net.InetAddress
import java.net.InetSocketAddress
import java.nio.channels.ServerSocketChannel

/** Connections that the system holds until they are accepted, which takes a moment even while a model is timed. */
private const val BACKLOG = 128

/** How long [AgentServer.stop] waits for a model call in progress, which nothing can interrupt. */
private const val STOP_WAIT_MS = 5_000L

/**
 * Listens on the loopback and serves one client at a time.
 *
 * Sessions run in one thread, those who wait are received in another. Start and stop are called from one thread, each
 * once.
 */
class AgentServer(
    private val config: AgentConfig,
) {
    private val listener = ServerSocketChannel.open()
    private val reception = ConnectionQueue(config, listener)
    private val receiving = Thread(reception::receive, "blocktime-reception").apply { isDaemon = true }
    private val serving = Thread(::serve, "blocktime-agent").apply { isDaemon = true }

    @Volatile private var stopped = false

    /** Opens the port and returns it; serves in threads of its own. Throws IOException with a line for people. */
    fun start(): Int {
        val loopback = InetAddress.getByAddress("localhost", byteArrayOf(127, 0, 0, 1))
        try {
            listener.socket().reuseAddress = true
            listener.socket().bind(InetSocketAddress(loopback, config.port), BACKLOG)
        } catch (error: IOException) {
            reception.close()
            val reason = if (error is BindException) "is in use" else "can't be used: ${error.message}"
            throw IOException("port ${config.port} $reason; choose another, or 0 to take a free one", error)
        }
        serving.start()
        receiving.start()
        return listener.socket().localPort
    }

    /** Closes the port and the connection, and waits a while for a model call in progress to end. */
    fun stop() {
        stopped = true
        reception.stop()
        receiving.join()
        serving.interrupt()
        serving.join(STOP_WAIT_MS)
    }

    private fun serve() {
        config.onThread()
        while (!stopped) {
            try {
                val client = reception.nextClient()
                Connection(client.channel, config.timeouts.frameMs).use { Session(config, it).serve(client.hello) }
            } catch (_: InterruptedException) {
                return
            } catch (_: IOException) {
                continue
            } finally {
                reception.freePlace()
            }
        }
    }
}
