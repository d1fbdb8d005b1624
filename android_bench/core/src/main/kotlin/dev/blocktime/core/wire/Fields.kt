package dev.blocktime.core.wire

import java.math.BigInteger

/** Integers that every language holds exactly. */
val COUNT = 0L..(1L shl 53) - 1

private const val MAX_RANK = 8
private val SHA256 = Regex("[0-9a-f]{64}")

/** A request breaks its schema at [field]. */
class SchemaException(
    val field: String,
    val reason: String,
) : Exception("$field: $reason")

/** Takes typed fields out of a [header]; [refuseOthers] then refuses those that nobody took. */
class Fields(
    private val header: Map<String, Any?>,
) {
    private val taken = mutableSetOf("op", "payload")
    private var payloadRange = 0L..0L

    /** States what the op allows as payload; none unless stated. */
    fun payload(range: LongRange) {
        payloadRange = range
    }

    fun int(
        name: String,
        range: LongRange,
    ): Long = integer(name, take(name), range)

    /** As the above; [absent] where there is no such field. */
    fun int(
        name: String,
        range: LongRange,
        absent: Long,
    ): Long = if (name in header) int(name, range) else absent

    /** Null where there is no such field. */
    fun boolean(name: String): Boolean? =
        if (name !in header) null else take(name) as? Boolean ?: throw SchemaException(name, "must be true or false")

    /** Text of so many Unicode characters. */
    fun text(
        name: String,
        length: IntRange,
    ): String {
        val text = take(name) as? String ?: throw SchemaException(name, "must be a string")
        if (text.codePointCount(0, text.length) !in length) {
            throw SchemaException(name, "must have ${length.first} to ${length.last} characters")
        }
        return text
    }

    fun sha256(): String =
        text("sha256", 64..64).also {
            if (!SHA256.matches(it)) throw SchemaException("sha256", "must be 64 lower-case hex digits")
        }

    fun list(
        name: String,
        size: IntRange,
    ): List<Any?> = items(name, take(name), size)

    /** Load options; none where the field is absent. */
    fun options(maxSize: Int): Map<String, Any> {
        val options = if ("options" in header) take("options") else emptyMap<String, Any>()
        if (options !is Map<*, *>) throw SchemaException("options", "must be an object")
        if (options.size > maxSize) throw SchemaException("options", "must be at most $maxSize")
        return options.entries.associate { (key, value) ->
            if (value !is Boolean && value !is Long && value !is BigInteger && value !is String) {
                throw SchemaException("options.$key", "must be a boolean, an integer or a string")
            }
            key as String to value
        }
    }

    fun tensors(
        name: String,
        maxSize: Int,
    ): List<TensorSpec> = list(name, 0..maxSize).map { tensor(name, it) }

    /** Throws [SchemaException] for a field that is not in the schema, or a payload out of range. */
    fun refuseOthers() {
        val other = header.keys.firstOrNull { it !in taken }
        if (other != null) throw SchemaException(other.take(64), "is not a field of this request")
        integer("payload", if ("payload" in header) header["payload"] else 0L, payloadRange)
    }

    private fun take(name: String): Any? {
        taken += name
        if (name !in header) throw SchemaException(name, "is missing")
        return header[name]
    }
}

/** [value] as an integer within [range]; throws [SchemaException]. */
fun integer(
    name: String,
    value: Any?,
    range: LongRange,
): Long {
    if (value !is Long || value !in range) {
        throw SchemaException(name, "must be an integer from ${range.first} to ${range.last}")
    }
    return value
}

/** [value] as a list of so many items; throws [SchemaException]. */
fun items(
    name: String,
    value: Any?,
    size: IntRange,
): List<Any?> {
    if (value !is List<*> || value.size !in size) {
        throw SchemaException(name, "must be a list of ${size.first} to ${size.last} items")
    }
    return value
}

/** Fields beyond type and shape are ignored, as everywhere but in requests themselves. */
private fun tensor(
    name: String,
    value: Any?,
): TensorSpec {
    if (value !is Map<*, *>) throw SchemaException(name, "must hold objects")
    val dtype =
        (value["dtype"] as? String)?.let(DType::named)
            ?: throw SchemaException("$name.dtype", "must be one of ${DType.entries.joinToString { it.wireName }}")
    val shape = items("$name.shape", value["shape"], 0..MAX_RANK)
    return TensorSpec(dtype, shape.map { integer("$name.shape", it, 0L..Int.MAX_VALUE).toInt() })
}
