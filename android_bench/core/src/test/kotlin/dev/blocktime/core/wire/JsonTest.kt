package dev.blocktime.core.wire

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.ValueSource
import java.math.BigInteger
import java.util.Random

class JsonTest {
    @Test
    fun `every kind of value`() {
        val text = """ {"a" : [1, -0, 2.5, 1e3, true, false, null, {}], "é😀" : "\u00e9\ud83d\ude00\n\/", "b":[]} """
        assertEquals(
            mapOf(
                "a" to listOf(1L, 0L, 2.5, 1000.0, true, false, null, emptyMap<String, Any>()),
                "é😀" to "é😀\n/",
                "b" to emptyList<Any>(),
            ),
            readJson(text.toByteArray()),
        )
    }

    @Test
    fun `integers keep all their digits`() {
        val texts = listOf("9007199254740993", "-9223372036854775808", "9223372036854775807", "18446744073709551616")
        val expected = listOf(9007199254740993L, Long.MIN_VALUE, Long.MAX_VALUE, BigInteger.ONE.shiftLeft(64))
        assertEquals(expected, texts.map { readJson(it.toByteArray()) })
        assertEquals(BigInteger.TEN.pow(308), readJson(("1" + "0".repeat(308)).toByteArray()))
    }

    @ParameterizedTest
    @ValueSource(
        strings = [
            "", " ", "{", "}", "[1,]", "[,1]", "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}",
            "{\"a\":1,\"a\":2}",
            "01", "-", "+1", "1.", ".5", "1e", "1e+", "0x1", "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1_0",
            "tru", "True", "nul", "'a'", "\"a", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\u+123\"",
            "\"\\ud800\"", "\"\\udc00\"", "\"\\udc00\\ud800\"", "\"\\ud800x\"", "\"\t\"", "\"\u0000\"", "1 2", "[1]]",
            "\uFEFF1", "\u00a01", "\u000b1", "//1", "１",
        ],
    )
    fun `what is not JSON`(text: String) {
        assertThrows(JsonException::class.java) { readJson(text.toByteArray()) }
    }

    @Test
    fun `what is not UTF-8`() {
        for (broken in listOf("ff", "c080", "eda080", "f4908080", "e282")) {
            val text = broken.chunked(2).map { it.toInt(16).toByte() }.toByteArray()
            val quote = "\"".toByteArray()
            assertThrows(JsonException::class.java, { readJson(quote + text + quote) }, broken)
        }
    }

    @Test
    fun `numbers of a million digits and depths of a hundred thousand are refused`() {
        for (text in listOf("9".repeat(1 shl 20), "[".repeat(100_000), "{\"a\":".repeat(100_000))) {
            assertThrows(JsonException::class.java) { readJson(text.toByteArray()) }
        }
    }

    @Test
    fun `what is written is read again`() {
        val random = Random(7)
        repeat(2_000) {
            val value = randomValue(random, depth = 0)
            assertEquals(value, readJson(writeJson(value).toByteArray(Charsets.US_ASCII)))
        }
    }

    @Test
    fun `half a surrogate pair is written as a replacement and NaN not at all`() {
        assertEquals("\"a\\ufffdb\\ufffd\"", writeJson("a\ud800b\udc00"))
        assertThrows(IllegalArgumentException::class.java) { writeJson(Double.NaN) }
        assertThrows(IllegalArgumentException::class.java) { writeJson(listOf(1.0f)) }
    }

    private fun randomValue(
        random: Random,
        depth: Int,
    ): Any? =
        when (random.nextInt(if (depth < 5) 8 else 6)) {
            0 -> null
            1 -> random.nextBoolean()
            2 -> random.nextLong()
            3 -> random.nextGaussian() * Math.pow(10.0, random.nextInt(600) - 300.0)
            4 -> BigInteger(200, random).add(BigInteger.ONE.shiftLeft(64))
            5 -> randomText(random)
            6 -> List(random.nextInt(4)) { randomValue(random, depth + 1) }
            else -> List(random.nextInt(4)) { randomText(random) }.associateWith { randomValue(random, depth + 1) }
        }

    private fun randomText(random: Random): String =
        buildString { repeat(random.nextInt(6)) { appendCodePoint(randomCodePoint(random)) } }

    private fun randomCodePoint(random: Random): Int =
        generateSequence { random.nextInt(if (random.nextBoolean()) 0x80 else 0x110000) }
            .first { it !in 0xd800..0xdfff }
}
