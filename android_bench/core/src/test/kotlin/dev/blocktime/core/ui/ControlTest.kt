package dev.blocktime.core.ui

import dev.blocktime.core.device.Caveat
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.ValueSource
import java.io.ByteArrayInputStream
import java.io.IOException
import java.io.InputStream

class ControlTest {
    private val control = Control()

    @Test
    fun `has no token until one is given`() {
        assertNull(control.token)
        control.acceptToken("0123456789abcdef".byteInputStream())
        assertEquals("0123456789abcdef", control.token)
    }

    @Test
    fun `takes a token that arrives byte by byte and closes its source`() {
        val source = OneByteAtATime("x".repeat(256))
        control.acceptToken(source)
        assertEquals("x".repeat(256), control.token)
        assertTrue(source.closed)
    }

    @ParameterizedTest
    @ValueSource(
        strings = [
            "",
            "fifteen-chars..",
            "0123456789abcdef\n",
            "0123456789 abcdef",
            "0123456789abcdé!!",
            "0123456789abcde\u0000f",
        ],
    )
    fun `refuses what is not a token and keeps the last`(bytes: String) {
        control.acceptToken("the-former-token-1".byteInputStream())
        assertThrows(IOException::class.java) { control.acceptToken(bytes.byteInputStream()) }
        assertEquals("the-former-token-1", control.token)
    }

    @Test
    fun `reads no more than one byte past the longest token`() {
        val source = ByteArrayInputStream(ByteArray(1 shl 20) { 'x'.code.toByte() })
        assertThrows(IOException::class.java) { control.acceptToken(source) }
        assertEquals((1 shl 20) - 257, source.available())
    }

    @Test
    fun `what is allowed is replaced as a whole`() {
        control.allow(listOf("low_battery", "debuggable_build"))
        assertEquals(setOf(Caveat.LOW_BATTERY, Caveat.DEBUGGABLE_BUILD), control.allowed)
        control.allow(listOf("throttled"))
        assertEquals(setOf(Caveat.THROTTLED), control.allowed)
        control.allow(listOf(""))
        assertEquals(emptySet<Caveat>(), control.allowed)
    }

    @Test
    fun `an unknown reason allows nothing`() {
        control.allow(listOf("low_battery"))
        assertThrows(IllegalArgumentException::class.java) { control.allow(listOf("throttled", "everything")) }
        assertEquals(emptySet<Caveat>(), control.allowed)
    }
}

private class OneByteAtATime(
    text: String,
) : InputStream() {
    private val bytes = text.byteInputStream()
    var closed = false

    override fun read() = bytes.read()

    override fun read(
        buffer: ByteArray,
        offset: Int,
        length: Int,
    ) = bytes.read(buffer, offset, minOf(length, 1))

    override fun close() {
        closed = true
    }
}
