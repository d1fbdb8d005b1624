package dev.blocktime.core.wire

/** A byte stream broke the framing rules, or stood still; [code] is the error that PROTOCOL.md gives it. */
class FrameException(
    val code: String,
    override val message: String,
) : Exception(message)
