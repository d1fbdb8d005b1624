package dev.blocktime.core.wire

const val PROTOCOL_VERSION = 1
const val MAX_HANDLES = 256
const val MAX_VISITS = 200_000

private const val MAX_WARMUP = 1_000L
private const val MAX_WARMUP_MS = 60_000L
private const val MAX_PACE_US = 1_000_000L
private const val MAX_HEARTBEAT_S = 600L
private const val MAX_TENSORS = 64
private const val MAX_OPTIONS = 32
private const val MAX_VERSION = 1_000_000L

/** A request that keeps its schema (protocol/schemas). */
sealed interface Request {
    data class Hello(
        val protocol: Long,
        val token: String,
    ) : Request

    data class Have(
        val sha256: String,
    ) : Request

    data class Put(
        val sha256: String,
    ) : Request

    /** Values of [options] are Boolean, Long, BigInteger or String. */
    data class Load(
        val sha256: String,
        val runtime: String,
        val options: Map<String, Any>,
        val heartbeatS: Int,
    ) : Request

    data class Placement(
        val handle: Long,
    ) : Request

    data class Unload(
        val handle: Long,
    ) : Request

    data class Check(
        val handle: Long,
        val inputs: List<TensorSpec>,
    ) : Request

    /**
     * [heartbeatS]: heartbeat interval requested by the client; 0: none. [warmupMs]: the most time for warming up until
     * latencies stop falling; 0: none. [paceUs]: a visit begins no sooner than that after the one before; 0: at once.
     * [keepWarm]: the processor is kept busy before visits.
     */
    class Run(
        val handles: List<Long>,
        val schedule: Schedule,
        val warmup: Int,
        val heartbeatS: Int,
        val warmupMs: Int,
        val paceUs: Int,
        val keepWarm: Boolean?,
    ) : Request

    data object State : Request

    data object Bye : Request
}

private val READERS: Map<String, (Fields) -> Request> =
    linkedMapOf(
        "hello" to { fields -> Request.Hello(fields.int("protocol", 1..MAX_VERSION), fields.text("token", 1..256)) },
        "have" to { fields -> Request.Have(fields.sha256()) },
        "put" to { fields ->
            fields.payload(1..MAX_PAYLOAD_BYTES)
            Request.Put(fields.sha256())
        },
        "load" to { fields -> readLoad(fields) },
        "placement" to { fields ->
            heartbeatS(fields)
            Request.Placement(fields.int("handle", COUNT))
        },
        "unload" to { fields -> Request.Unload(fields.int("handle", COUNT)) },
        "check" to { fields ->
            fields.payload(0..MAX_PAYLOAD_BYTES)
            Request.Check(fields.int("handle", COUNT), fields.tensors("inputs", MAX_TENSORS))
        },
        "run" to { fields -> readRun(fields) },
        "state" to { _ -> Request.State },
        "bye" to { _ -> Request.Bye },
    )

/** Names of all ops, in PROTOCOL.md's order. */
val OPS: Set<String> get() = READERS.keys

/** The id that the reply to [header] is to carry; null where it has no valid one. */
fun idOf(header: Map<String, Any?>): Long? = (header["id"] as? Long)?.takeIf { it in COUNT }

/** The request in [header], whose op is one of [OPS]; throws [SchemaException] where it breaks its schema. */
fun readRequest(
    op: String,
    header: Map<String, Any?>,
): Request {
    val fields = Fields(header)
    fields.int("id", COUNT)
    val request = READERS.getValue(op)(fields)
    fields.refuseOthers()
    return request
}

private fun heartbeatS(fields: Fields): Int = fields.int("heartbeat_s", 0..MAX_HEARTBEAT_S, absent = 0).toInt()

/** No runtime of these agents knows placements, so that it is all one whether the reply is to have it. */
private fun readLoad(fields: Fields): Request.Load {
    fields.boolean("placement")
    val options = fields.options(MAX_OPTIONS)
    return Request.Load(fields.sha256(), fields.text("runtime", 1..64), options, heartbeatS(fields))
}

private fun readRun(fields: Fields): Request.Run {
    val handles = fields.list("handles", 1..MAX_HANDLES).map { integer("handles", it, COUNT) }
    val rounds =
        fields.list("order", 1..MAX_VISITS).map { round ->
            items("order", round, 1..MAX_VISITS)
        }
    val visits = rounds[0].size
    if (rounds.any { it.size != visits }) {
        throw SchemaException("order", "every round must have the same number of visits")
    }
    if (rounds.size.toLong() * visits > MAX_VISITS) {
        throw SchemaException("order", "${rounds.size.toLong() * visits} visits are over $MAX_VISITS")
    }
    val indices = IntArray(rounds.size * visits)
    val known = 0..handles.size - 1L
    var next = 0
    for (round in rounds) {
        for (index in round) indices[next++] = integer("order", index, known).toInt()
    }
    val warmup = fields.int("warmup", 0..MAX_WARMUP).toInt()
    val heartbeatS = heartbeatS(fields)
    val warmupMs = fields.int("warmup_ms", 0..MAX_WARMUP_MS, absent = 0).toInt()
    val paceUs = fields.int("pace_us", 0..MAX_PACE_US, absent = 0).toInt()
    val keepWarm = fields.boolean("keep_warm")
    val schedule = Schedule(rounds.size, visits, indices)
    return Request.Run(handles, schedule, warmup, heartbeatS, warmupMs, paceUs, keepWarm)
}
