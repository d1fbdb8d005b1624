package dev.blocktime.jvm

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.io.File

class OptionsTest {
    @Test
    fun `all options, in both spellings`() {
        val separate =
            listOf("--store", "s", "--store-bytes", "9", "--port", "8", "--parent-watch", "--simulate", "Pixel 8")
        val joined = listOf("--store=s", "--store-bytes=9", "--port=8", "--parent-watch", "--simulate=Pixel 8")
        val expected = Options(File("s"), 9, 8, parentWatch = true, simulate = "Pixel 8")
        assertEquals(expected, Options.parse(separate))
        assertEquals(expected, Options.parse(joined))
        assertEquals(Options(File("s"), 4L shl 30, 0), Options.parse(listOf("--store", "s")))
        val alone = Options(File("s"), bundle = File("b"), journal = File("j"))
        assertEquals(alone, Options.parse(listOf("--store=s", "--bundle=b", "--journal", "j")))
    }

    @Test
    fun `what can't be obeyed is named`() {
        for ((line, word) in listOf(
            "" to "--store",
            "--store" to "--store",
            "--store s --token x" to "--token",
            "--store s --port x" to "--port",
            "--store s --port 65536" to "--port",
            "--store s --store-bytes -1" to "--store-bytes",
        )) {
            val error =
                assertThrows(UsageException::class.java) { Options.parse(line.split(' ').filter(String::isNotEmpty)) }
            assertTrue(word in error.message, error.message)
        }
    }
}
