package dev.blocktime.core.wire

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory
import java.io.File
import java.io.InputStream

private val GOLDEN = File(System.getProperty("blocktime.protocol"), "golden")

internal fun golden(name: String): ByteArray = File(GOLDEN, name).readBytes()

internal fun source(stream: InputStream) = ByteSource { stream.readNBytes(it, 0, it.size) }

@Suppress("UNCHECKED_CAST") // the manifest is ours
private fun cases(): List<Map<String, Any?>> =
    (readJson(golden("manifest.json"), maxDepth = 99) as Map<String, Any?>)["cases"] as List<Map<String, Any?>>

/** The byte streams that agents and clients in every language decode alike. */
class GoldenFramesTest {
    @TestFactory
    fun `stream decodes as the manifest says`(): List<DynamicTest> =
        cases().map { case -> dynamicTest(case["file"] as String) { checkStream(case) } }

    @TestFactory
    fun `request keeps or breaks its schema`(): List<DynamicTest> {
        val requests = cases().filter { (it["schema"] as? String).orEmpty().endsWith(".request.json") }
        assertTrue(requests.any { it["valid"] == true } && requests.any { it["valid"] == false })
        return requests.map { case ->
            dynamicTest(case["file"] as String) {
                val header = checkNotNull(readFrame(source(golden(case["file"] as String).inputStream()))).header
                val accepted = runCatching { readRequest(header["op"] as String, header) }
                accepted.exceptionOrNull()?.let { assertTrue(it is SchemaException, "$it") }
                assertEquals(case["valid"], accepted.isSuccess)
            }
        }
    }

    private fun checkStream(case: Map<String, Any?>) {
        val source = source(golden(case["file"] as String).inputStream())
        val frames = mutableListOf<Pair<Map<String, Any?>, String>>()
        val ends =
            try {
                while (true) {
                    val frame = readFrame(source) ?: break
                    val payload = frame.payload.chunks().flatMap { it.asSequence() }
                    frames += frame.header to payload.joinToString("") { "%02x".format(it) }
                }
                "end"
            } catch (error: FrameException) {
                error.code
            }
        val expected = case["frames"] as List<*>
        assertEquals(case["ends"], ends)
        assertEquals(expected.size, frames.size)
        for ((found, wanted) in frames.zip(expected.map { it as Map<*, *> })) {
            assertEquals(wanted["payload_hex"], found.second)
            if ("header" in wanted) {
                assertEquals(wanted["header"], found.first)
            } else {
                assertEquals(wanted["header_bytes"], writeJson(found.first).length.toLong())
            }
        }
    }
}
