package dev.blocktime.core.wire

import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.io.File
import java.util.Random

private const val STREAMS = 10_000
private const val SEED = 20261121L

/** Streams made of golden ones by flips, cuts, copies and inserted bytes. Seeded and bounded. */
class FrameFuzzTest {
    @Test
    fun `a mangled stream ends or is refused`() {
        val random = Random(SEED)
        val originals =
            File(System.getProperty("blocktime.protocol"), "golden")
                .listFiles { file -> file.extension == "bin" && file.length() < 4096 }!!
                .sorted()
                .map(File::readBytes)
        val outcomes = HashMap<String, Int>()
        repeat(STREAMS) {
            val stream = mangled(originals[random.nextInt(originals.size)], random)
            outcomes.merge(decode(stream), 1, Int::plus)
        }
        val expected = setOf("end", "truncated", "bad_header", "header_too_large", "payload_too_large")
        assertTrue(outcomes.keys == expected, "$outcomes")
    }

    /** How the stream ends; only a FrameException may come out of the reader. */
    private fun decode(stream: ByteArray): String {
        val source = source(stream.inputStream())
        return try {
            while (true) {
                val frame = readFrame(source) ?: break
                (frame.header["op"] as? String)?.takeIf(OPS::contains)?.let { tryRequest(it, frame.header) }
                frame.payload.drain()
            }
            "end"
        } catch (error: FrameException) {
            error.code
        }
    }

    private fun tryRequest(
        op: String,
        header: Map<String, Any?>,
    ) {
        try {
            readRequest(op, header)
        } catch (_: SchemaException) {
            return
        }
    }
}

internal fun mangled(
    original: ByteArray,
    random: Random,
): ByteArray {
    var bytes = original.copyOf()
    repeat(1 + random.nextInt(4)) {
        if (bytes.isEmpty()) return byteArrayOf(random.nextInt().toByte())
        val at = random.nextInt(bytes.size)
        when (random.nextInt(5)) {
            0 -> bytes[at] = (bytes[at].toInt() xor (1 shl random.nextInt(8))).toByte()
            1 -> bytes[at] = random.nextInt().toByte()
            2 -> bytes = bytes.copyOf(at)
            3 -> bytes = bytes.copyOf(at) + bytes.copyOfRange(random.nextInt(bytes.size), bytes.size)
            else -> bytes = bytes.copyOf(at) + ByteArray(random.nextInt(9)).also(random::nextBytes) + bytes.drop(at)
        }
    }
    return bytes
}
