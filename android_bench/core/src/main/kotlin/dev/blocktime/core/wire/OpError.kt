package dev.blocktime.core.wire

/**
 * A request failed. [code] is one of PROTOCOL.md's, [message] one line for people: what, why, what to do next.
 * The connection stays open unless [closes].
 */
class OpError(
    val code: String,
    override val message: String,
    val closes: Boolean = false,
) : Exception(message)
