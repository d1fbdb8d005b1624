package dev.blocktime.core.wire

import java.math.BigInteger
import java.nio.ByteBuffer

const val MAX_HEADER_BYTES = 1 shl 20
const val MAX_PAYLOAD_BYTES = 1L shl 30

/** Pieces in which a payload is read. */
const val CHUNK_BYTES = 1 shl 18

/** A byte stream broke the framing rules, or stood still; [code] is the error that PROTOCOL.md gives it. */
class FrameException(
    val code: String,
    override val message: String,
) : Exception(message)

/** What frames are read from. */
fun interface ByteSource {
    /** Blocks until [target] is full or the stream has ended; returns the number of bytes that arrived. */
    fun read(target: ByteArray): Int
}

/** A frame whose [payload] is yet to be read. */
class Frame(
    val header: Map<String, Any?>,
    val payload: Payload,
)

/** The payload bytes that follow a header on [source], each to be read once and in order. */
class Payload(
    private val source: ByteSource,
    val sizeBytes: Long,
) {
    private var leftBytes = sizeBytes

    /** What is left, in pieces of at most 256 KiB; throws FrameException `truncated` where the stream ends early. */
    fun chunks(): Sequence<ByteArray> =
        generateSequence {
            if (leftBytes == 0L) return@generateSequence null
            val chunk = readExactly(source, minOf(leftBytes, CHUNK_BYTES.toLong()).toInt(), "payload")
            leftBytes -= chunk.size
            chunk
        }

    /** Reads and drops what is left, so that the next frame can be read. */
    fun drain() = chunks().forEach { _ -> }
}

/** Length prefix and [header] of a frame whose payload of [payloadBytes] the caller sends next. */
fun encodeHeader(
    header: Map<String, Any?>,
    payloadBytes: Int = 0,
): ByteArray {
    val fields = if (payloadBytes > 0) header + ("payload" to payloadBytes) else header
    val raw = writeJson(fields).toByteArray(Charsets.US_ASCII)
    check(raw.size <= MAX_HEADER_BYTES) { "a header of ${raw.size} bytes is over the limit of 1 MiB" }
    return ByteBuffer
        .allocate(4 + raw.size)
        .putInt(raw.size)
        .put(raw)
        .array()
}

/** The next frame of [source]; null where the stream ended between frames. Throws [FrameException]. */
fun readFrame(source: ByteSource): Frame? {
    val prefix = ByteArray(4)
    when (source.read(prefix)) {
        0 -> return null
        in 1..3 -> truncated("header length")
    }
    val headerBytes = ByteBuffer.wrap(prefix).int.toLong() and 0xffff_ffffL
    if (headerBytes > MAX_HEADER_BYTES) {
        throw FrameException("header_too_large", "a header of $headerBytes bytes is over the limit of 1 MiB")
    }
    val header = decodeHeader(readExactly(source, headerBytes.toInt(), "header"))
    return Frame(header, Payload(source, payloadBytes(header)))
}

private fun decodeHeader(raw: ByteArray): Map<String, Any?> {
    val value =
        try {
            readJson(raw)
        } catch (error: JsonException) {
            throw FrameException("bad_header", "the header is refused: ${error.message}")
        }
    @Suppress("UNCHECKED_CAST") // the reader makes only string keys
    return value as? Map<String, Any?> ?: throw FrameException("bad_header", "the header is not a JSON object")
}

private fun payloadBytes(header: Map<String, Any?>): Long {
    val bytes =
        when (val announced = if ("payload" in header) header["payload"] else 0L) {
            is Long -> BigInteger.valueOf(announced)
            is BigInteger -> announced
            else -> BigInteger.ONE.negate()
        }
    if (bytes.signum() < 0) throw FrameException("bad_header", "payload must be a non-negative integer")
    if (bytes > BigInteger.valueOf(MAX_PAYLOAD_BYTES)) {
        throw FrameException("payload_too_large", "a payload of $bytes bytes is over the limit of 1 GiB")
    }
    return bytes.toLong()
}

private fun readExactly(
    source: ByteSource,
    sizeBytes: Int,
    part: String,
): ByteArray {
    val data = ByteArray(sizeBytes)
    if (source.read(data) < sizeBytes) truncated(part)
    return data
}

private fun truncated(part: String): Nothing =
    throw FrameException("truncated", "the stream ended inside the $part of a frame")
