package dev.blocktime.core.agent

import dev.blocktime.core.device.Caveat
import dev.blocktime.core.device.DeviceInfo
import dev.blocktime.core.device.DeviceProbe
import dev.blocktime.core.device.DeviceReading
import dev.blocktime.core.device.Readiness
import dev.blocktime.core.store.ModelStore
import dev.blocktime.core.wire.Frame
import dev.blocktime.core.wire.encodeHeader
import dev.blocktime.core.wire.readFrame
import java.io.Closeable
import java.io.File
import java.net.InetAddress
import java.net.Socket
import java.security.MessageDigest
import java.util.concurrent.CopyOnWriteArrayList

const val TOKEN = "right"
const val STORE_BYTES = 1000L

/** An agent with a fake runtime and device, on a free port. */
class TestAgent(
    folder: File,
    timeouts: Timeouts = Timeouts(),
    token: String? = TOKEN,
    port: Int = 0,
) : Closeable {
    val runtime = DoublerRuntime()
    val listener = RecordingListener()
    val store = ModelStore(folder, STORE_BYTES)

    /** Readings that the device reports in order; the last is repeated. */
    @Volatile var readings = listOf(DeviceReading(uptimeNs = 1))

    @Volatile var allowed = emptySet<Caveat>()

    private val probe =
        object : DeviceProbe {
            override fun identity() = DeviceInfo("Pixel 8", "Android 15", null, null, cores = 9, memoryBytes = 8)

            override fun read() = readings.first().also { if (readings.size > 1) readings = readings.drop(1) }
        }

    /** The thread that the agent prepared to load and time models. */
    @Volatile var prepared: Thread? = null

    private val server =
        AgentServer(
            AgentConfig(
                info = AgentInfo("test", "1"),
                token = { token },
                port = port,
                store = store,
                runtimes = mapOf("doubler" to runtime),
                probe = probe,
                readiness = Readiness { allowed },
                listener = listener,
                timeouts = timeouts,
                onThread = { prepared = Thread.currentThread() },
            ),
        )
    val port = server.start()

    fun connect() = TestClient(port)

    fun greeted() = connect().apply { greet() }

    override fun close() = server.stop()
}

/** Sends arbitrary bytes and reads frames. */
class TestClient(
    port: Int,
) : Closeable {
    val socket = Socket(InetAddress.getByName("127.0.0.1"), port).apply { soTimeout = 20_000 }
    private var nextId = 1L

    fun send(bytes: ByteArray) = socket.getOutputStream().write(bytes)

    /** The next reply with its payload; null where the agent has closed. */
    fun receive(): Pair<Map<String, Any?>, ByteArray>? {
        val frame: Frame = readFrame { socket.getInputStream().readNBytes(it, 0, it.size) } ?: return null
        return frame.header to frame.payload.chunks().fold(ByteArray(0), ByteArray::plus)
    }

    /** The reply to [op] with [fields] and [payload]. */
    fun ask(
        op: String,
        fields: Map<String, Any?> = emptyMap(),
        payload: ByteArray = ByteArray(0),
    ): Pair<Map<String, Any?>, ByteArray> {
        val id = nextId++
        send(encodeHeader(mapOf("id" to id, "op" to op) + fields, payload.size) + payload)
        val reply = checkNotNull(receive()) { "the agent closed instead of answering $op" }
        check(reply.first["id"] == id) { "answered ${reply.first}" }
        return reply
    }

    /** The code of the error that answers [op]; fails where it is answered without one. */
    fun refusal(
        op: String,
        fields: Map<String, Any?> = emptyMap(),
        payload: ByteArray = ByteArray(0),
    ): String = errorCode(ask(op, fields, payload).first)

    fun greet(token: String = TOKEN) = ask("hello", mapOf("protocol" to 1, "token" to token)).first

    /** Stores [text] as a model and returns its hash. */
    fun put(text: String): String {
        val sha256 = sha256(text.toByteArray())
        val reply = ask("put", mapOf("sha256" to sha256), text.toByteArray()).first
        check("error" !in reply) { "$reply" }
        return sha256
    }

    /** Stores and loads [text] and returns the handle. */
    fun load(text: String): Long =
        ask("load", mapOf("sha256" to put(text), "runtime" to "doubler")).first["handle"] as Long

    override fun close() = socket.close()
}

fun errorCode(header: Map<String, Any?>): String =
    checkNotNull(header["error"] as? Map<*, *>) { "no error: $header" }["code"] as String

fun sha256(bytes: ByteArray): String =
    MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }

/** Records all events. */
class RecordingListener : AgentListener {
    val events = CopyOnWriteArrayList<String>()
    val results = CopyOnWriteArrayList<RunResult>()

    override fun onClientConnected() {
        events += "connected"
    }

    override fun onClientGone() {
        events += "gone"
    }

    override fun onWork(work: Work) {
        events += work.op
    }

    override fun onResult(result: RunResult) {
        results += result
    }

    override fun onRefusal(
        code: String,
        message: String,
    ) {
        events += "refused $code"
    }
}
