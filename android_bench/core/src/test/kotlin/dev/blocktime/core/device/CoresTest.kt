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
        fun byCapacity(vararg capacities: Double?) = threadsOf(capacities.toList(), List(capacities.size) { null })
        // Little, middle and big cores; then chips without little ones, whose slowest cores have the lowest clock too.
        assertEquals(5, byCapacity(200.0, 200.0, 200.0, 200.0, 700.0, 700.0, 700.0, 700.0, 1024.0))
        assertEquals(8, byCapacity(800.0, 800.0, 800.0, 800.0, 800.0, 800.0, 1024.0, 1024.0))
        assertEquals(8, threadsOf(List(6) { 800.0 } + List(2) { 1024.0 }, List(6) { 1000.0 } + List(2) { 3000.0 }))
        assertEquals(4, byCapacity(511.0, 511.0, 511.0, 511.0, 512.0, 512.0, 1024.0, 1024.0))
        // All alike, alone.
        assertEquals(2, byCapacity(1024.0, 1024.0, 1024.0, 1024.0))
        assertEquals(1, byCapacity(1024.0))
    }

    @Test
    fun `where a core has no capacity clocks tell little cores, and else half count`() {
        fun byClock(vararg mhz: Double?) = threadsOf(listOf(100.0) + List(mhz.size - 1) { null }, mhz.toList())
        assertEquals(3, byClock(1400.0, 1400.0, 1400.0, 1400.0, 1400.0, 2800.0, 2800.0, 3000.0))
        // Clocks of a Pixel 8, of four little, four middle and one big core: 1704 is more than half of 2914.
        assertEquals(4, byClock(1704.0, 1704.0, 1704.0, 1704.0, 2367.0, 2367.0, 2367.0, 2367.0, 2914.0))
        // All alike, unknown in part, unknown, alone.
        assertEquals(2, byClock(3000.0, 3000.0, 3000.0, 3000.0))
        assertEquals(2, byClock(1300.0, 1300.0, 2800.0, null))
        assertEquals(3, byClock(null, null, null, null, null, null, null))
        assertEquals(1, byClock(null))
    }

    private fun threadsOf(
        capacities: List<Double?>,
        mhz: List<Double?>,
    ) = threadsByDefault(mhz.indices.toList(), byCore(capacities), byCore(mhz))

    private fun byCore(values: List<Double?>) =
        values.mapIndexedNotNull { core, value -> value?.let { core to it } }.toMap()
}
