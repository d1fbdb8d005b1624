package dev.blocktime.core.device

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

class CoresTest {
    @Test
    fun `lists of cores`() {
        assertEquals(listOf(4, 5, 6, 7, 8), parseCores("4-8"))
        assertEquals(listOf(0, 2, 3), parseCores("2-3,0"))
        for (list in listOf("", "4-", "8-4", "-1", "a", "1,,2", "99999")) {
            assertThrows(IllegalArgumentException::class.java) { parseCores(list) }
        }
    }

    @Test
    fun `what a thread's status allows`() {
        assertEquals("4-8", allowedCores("Name:\tagent\nCpus_allowed:\t1f0\nCpus_allowed_list:\t4-8\n"))
        assertNull(allowedCores("Name:\tagent\n"))
    }

    @Test
    fun `threads are as many as cores that are not little`() {
        fun default(vararg mhz: Double?) =
            threadsByDefault(
                mhz.indices.toList(),
                mhz
                    .withIndex()
                    .mapNotNull { (core, clock) ->
                        clock?.let { core to it }
                    }.toMap(),
            )
        // A Pixel 8: four little, four middle, one big.
        assertEquals(5, default(1704.0, 1704.0, 1704.0, 1704.0, 2367.0, 2367.0, 2367.0, 2367.0, 2914.0))
        assertEquals(4, default(1800.0, 1800.0, 1800.0, 1800.0, 2800.0, 2800.0, 2800.0, 2800.0))
        // All alike, unknown in part, unknown, alone.
        assertEquals(2, default(3000.0, 3000.0, 3000.0, 3000.0))
        assertEquals(2, default(1800.0, 1800.0, 2800.0, null))
        assertEquals(3, default(null, null, null, null, null, null, null))
        assertEquals(1, default(null))
    }
}
